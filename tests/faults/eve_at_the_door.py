"""Eve by hand, where a real site would be too well behaved: handshakes that check nothing, replays, recorded tags."""

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from types import SimpleNamespace

from heliograph.authentication.mac import Pad, make_tag
from heliograph.authentication.pads import PadRole
from heliograph.authentication.prefilter import FILTER_TAG_BYTES, FrameFilter, connection_key
from heliograph.errors import HeliographError, TransportClosed
from heliograph.protocol.codec import decode
from heliograph.protocol.conversation import Conversation
from heliograph.protocol.frames import Direction, parse_frame
from heliograph.protocol.handshake import DRAWN_BYTES, Door, Initiator, Presence, Responder
from heliograph.protocol.hello import Hello, HelloReply, decode_hello
from heliograph.protocol.records import Marks
from heliograph.transport.tcp import TcpTransport, dial, listen

HOST = "127.0.0.1"
ROLES = {
    "Proposal": PadRole.PROPOSAL,
    "QuantumPhaseClosed": PadRole.CLOSURE,
    "AmplificationSeed": PadRole.DECIDER,
    "ParticipantAccept": PadRole.PARTICIPANT,
    "Decision": PadRole.DECISION,
    "Acknowledgement": PadRole.ACKNOWLEDGEMENT,
    "Settlement": PadRole.SETTLEMENT,
}


@dataclass
class Recorded:
    """One connection as the recorder saw it. ``sent``, ``got``: what the dialler said and heard after the handshake."""

    hello: bytes
    reply: bytes = b""
    confirm: bytes = b""
    welcome: bytes = b""
    sent: list = field(default_factory=list)
    got: list = field(default_factory=list)

    @property
    def transcript(self):
        return self.hello + self.reply

    @property
    def generation(self):
        return decode_hello(self.hello, Hello).generation


def _messages(content):
    at = 0
    while at + 4 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if at + 4 + size > len(content):
            return  # the recording ends in it
        yield content[at + 4 : at + 4 + size]
        at += 4 + size


def recorded(tap):
    """Read a closed recorder's two files back into the connections that it relayed, in order."""
    connections, answers = [], []
    for message in _messages(tap.files[0].read_bytes()):
        if message[1:].startswith(b"\xa5Hello"):
            connections.append(Recorded(message))
        elif not connections[-1].confirm:
            connections[-1].confirm = message
        else:
            connections[-1].sent.append(message)
    for message in _messages(tap.files[1].read_bytes()):
        if message[1:].startswith(b"\xaaHelloReply"):
            answers.append(Recorded(b"", message))
        elif not answers[-1].welcome:
            answers[-1].welcome = message
        else:
            answers[-1].got.append(message)
    for one, answer in zip(connections, answers, strict=True):
        one.reply, one.welcome, one.got = answer.reply, answer.welcome, answer.got
    return connections


# Handshakes.
class _Reckless:
    """Believes everybody: what a site would refuse to go on with, she goes on with."""

    def _check_mac(self, *_):
        pass

    def _check_signature(self, *_):
        return None

    def _fence(self, *_):
        pass

    def _agree(self, door, exchange, credential):
        with contextlib.suppress(HeliographError):
            return super()._agree(door, exchange, credential)
        return super()._agree(Door(door.generation, door.key), b"", b"")


class _Dialler(_Reckless, Initiator):
    pass


class _Listener(_Reckless, Responder):
    pass


def presence_as(site, last):
    """Return how Eve shows herself: as the ``site`` that the victim met last, by the public part of that meeting."""
    hello, reply = decode_hello(last.hello, Hello), decode_hello(last.reply, HelloReply)
    own, other = (hello, reply) if site == hello.site else (reply, hello)
    return Presence(site, Marks(*own.marks), os.urandom(16), own.instance, other.instance, own.context)


async def _next(transport):
    """Return what the victim says next, None if it ends the connection instead: it must do the one or the other."""
    async with asyncio.timeout(60):
        try:
            return await transport.receive()
        except HeliographError:
            return None


async def knock(port, identity, presence, door):
    """Dial a listening site through ``door``; return what it says after Eve's proof, None if nothing."""
    transport = await dial(HOST, port)
    side = _Dialler(identity, presence, os.urandom(DRAWN_BYTES), 0.0)
    try:
        await transport.send(side.hello(door))
        try:
            reply = await transport.receive()
        except TransportClosed:
            return None  # not even an answer
        await transport.send(side.confirm(reply)[0])
        return await _next(transport)
    finally:
        await transport.close()


async def replay_to_listener(port, one):
    """Say again to a listening site what was once said to it; return what it says after the old proof, if anything."""
    transport = await dial(HOST, port)
    try:
        await transport.send(one.hello)
        try:
            await transport.receive()
            for message in (one.confirm, *one.sent):
                await transport.send(message)
        except TransportClosed:
            return None
        return await _next(transport)
    finally:
        await transport.close()


def replayed(one):
    """Answer a dialling site with what was once answered to it."""

    async def act(transport):
        await transport.receive()
        with contextlib.suppress(TransportClosed):
            for message in (one.reply, one.welcome, *one.got):
                await transport.send(message)
        return await _next(transport)

    return act


def answered(identity, presence, door):
    """Answer a dialling site as its peer, proved by ``door``'s key whatever it asks for."""

    async def act(transport):
        side = _Listener(identity, presence, os.urandom(DRAWN_BYTES), 0.0)
        hello = await transport.receive()
        await transport.send(side.reply(hello, lambda generation: Door(generation, door.key, door.signer)))
        return await _next(transport)

    return act


async def lie_in_wait(port, acts):
    """Listen where the victim dials and play one act on each of its connections; return what each one got."""
    waiting, heard, done = list(acts), [], asyncio.Event()

    async def accept(transport: TcpTransport):
        try:
            if waiting:
                heard.append(await waiting.pop(0)(transport))
        finally:
            await transport.close()
            if not waiting and len(heard) == len(acts):
                done.set()

    server = await listen(HOST, port, accept)
    try:
        async with asyncio.timeout(60):
            await done.wait()
    finally:
        server.close()
    return heard


# What the recorded bytes give away to who holds some keys.
def filtered_by(one, keys):
    """Return the keys that make the pre-filter tag of the first frame of either direction, as the sites would."""

    def opens(key, sealed):
        return FrameFilter(connection_key(key, one.transcript)).open(sealed) is not None

    return [key for key in keys for frames in (one.sent, one.got) if frames and opens(key, frames[0])]


def tagged(identity, connections):
    """Return role, covered bytes and tag of each tagged message of each block, from the frames on the wire.

    A dict by (epoch, block) of lists; the dialler is the transmitter.
    """
    down, up, last = {}, {}, {}
    for one in connections:
        for frames, into in ((one.sent, down), (one.got, up)):
            for sealed in frames:
                frame = parse_frame(sealed[:-FILTER_TAG_BYTES])
                name, block = type(decode(frame.body)).__name__, (frame.epoch, frame.block)
                if ROLES.get(name, 0) >= PadRole.DECISION:
                    last.setdefault(block, {})[name] = frame  # perhaps repeated, verbatim
                else:
                    into.setdefault(block, {})[frame.sequence] = SimpleNamespace(name=name, frame=frame)
    found = {}
    for block, words in last.items():
        sent, got = ([one[at] for at in sorted(one)] for one in (down[block], up[block]))
        talk = Conversation(identity, *block, Direction.TO_RECEIVER)
        covers = [(ROLES[name], talk.frame_cover(ROLES[name], frame), frame.tag) for name, frame in words.items()]
        for one in (*sent, *got):
            role, frame = ROLES.get(one.name), one.frame
            if role is None:
                continue
            if role in (PadRole.DECIDER, PadRole.PARTICIPANT):
                before = [frame.sequence, frame.last_seen]
                if role is PadRole.PARTICIPANT:
                    before.reverse()
                so_far = [tuple(x.frame.wire() for x in side[:n]) for side, n in zip((sent, got), before, strict=True)]
                whole = Conversation(identity, *block, Direction.TO_RECEIVER, *so_far)
                covers.append((role, whole.transcript_cover(role, frame), frame.tag))
            else:
                covers.append((role, talk.frame_cover(role, frame), frame.tag))
        found[block] = sorted(covers)
    return found


def tag_made_by(keys, covered, tag):
    """Return whether one of the keys makes this one-time tag."""
    return any(make_tag(Pad(key), covered) == tag[:16] for key in keys)
