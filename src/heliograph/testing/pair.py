"""Both sites of a link in one process: real machines, real stores, a seeded fibre, and a wire that a test may bend.

The one place where both parties meet; the product never does this. The same seeds give the same transcript and key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from heliograph.authentication.anchors.psk import make_book, secret_size
from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS, has_signature
from heliograph.authentication.pads import PadAddress
from heliograph.errors import (
    AuthenticationFailed,
    HeliographError,
    LocalProtocolError,
    PadsExhausted,
    RemoteProtocolError,
)
from heliograph.kernels.expansion import SeededPulses, expand_bases
from heliograph.protocol import actions as a
from heliograph.protocol.frames import Direction
from heliograph.protocol.handshake import Door, Established, Initiator, Responder
from heliograph.protocol.registration import LinkRegistration
from heliograph.protocol.session import BlockAction
from heliograph.sim.channel import Channel
from heliograph.sim.clicks import Clicks, sample_clicks
from heliograph.sim.eve import Attack
from heliograph.testing.anchor import KnownKey, SeededSigner
from heliograph.testing.randomness import SeededRandom
from heliograph.testing.side import Side
from heliograph.types import BlockId, DetectionRecord, LightParameters

__all__ = ["Pair", "Wire", "shake_hands"]

Wire = Callable[[Direction, bytes], Iterable[bytes]]
"""What becomes of a frame on its way: nothing, itself, something else, several."""


def _honest(_: Direction, frame: bytes) -> Iterable[bytes]:
    return (frame,)


class Pair:
    """``tx`` and ``rx`` joined by ``wire``; ``light`` goes through a seeded fibre, with Eve if a test wants her.

    ``wire`` gets each frame as it leaves, sealed by the pre-filter unless ``prefilter`` is off. ``frames`` records
    what was sent. The pair connects when it is made; ``disconnect``, ``restart`` and ``connect`` go on from there.
    """

    def __init__(
        self,
        registration: LinkRegistration,
        channel: Channel,
        directory: Path,
        *,
        seed: int = 1,
        prefilter: bool = True,
        attack: Attack | None = None,
        wire: Wire = _honest,
    ) -> None:
        self.wire = wire
        self.frames: list[tuple[Direction, bytes]] = []
        self.connected = False
        self._channel = channel
        self._attack = attack
        self._seed = seed
        self._prefilter = prefilter
        self._promised = 0
        book = make_book(SeededRandom(seed, "book").draw(secret_size()))
        self.tx = Side.create("tx", registration, directory, book, seed)
        self.rx = Side.create("rx", registration, directory, book, seed)
        if has_signature(registration.bootstrap):
            for side, own, peer in ((self.tx, 1, 2), (self.rx, 2, 1)):
                side.signer, side.trust = SeededSigner(own), KnownKey(SeededSigner(peer).credential)
        self._light: dict[BlockId, tuple[LightParameters, bytes]] = {}
        self._armed: dict[BlockId, tuple[LightParameters, bytes]] = {}
        self._todo: deque[tuple[Side, BlockId, a.Event] | tuple[Side, bytes]] = deque()
        self.connect()

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both sites."""
        return self.tx, self.rx

    def other(self, side: Side) -> Side:
        """Return the peer of ``side``."""
        return self.rx if side is self.tx else self.tx

    # Connections.
    def connect(self) -> None:
        """Shake hands, resynchronise, and let both sides repeat what the other may not have heard."""
        self.disconnect()
        self._promised = 0  # blocks that were promised pads by no stored decision are free again
        at_tx, at_rx = shake_hands(self.tx, self.rx)
        plans = [side.plan(established) for side, established in ((self.tx, at_tx), (self.rx, at_rx))]
        for side, plan, established in zip(self.sides, plans, (at_tx, at_rx), strict=True):
            side.resume(plan, established, prefilter=self._prefilter)
        self.connected = True
        for side in self.sides:
            self._carry_out(side, side.running.resumptions())
        self.settle()

    def disconnect(self) -> None:
        """Lose the connection and every frame on it."""
        self.connected = False
        self._todo = deque(item for item in self._todo if len(item) == 3)
        for side in self.sides:
            if side.session is not None:
                side.session, actions = side.session.disconnected()
                self._carry_out(side, actions)
        self.settle()

    def crash(self, side: Side) -> None:
        """Stop one site at once and start it again from its store; the connection is gone."""
        self._todo = deque(item for item in self._todo if item[0] is not side)
        side.restart()
        self.disconnect()

    # Driving.
    def begin_block(self, refills: int = 2) -> BlockId:
        """Let the transmitter's site begin one more block; nothing is delivered yet."""
        block = BlockId(self.tx.records.available(self.tx.running.floor)[0])
        last = max(self.tx.commits.assigned(), self._promised, BOOTSTRAP_BLOCKS)
        self._promised = last + refills
        self.tx.session, actions = self.tx.running.begin(block, tuple(range(last + 1, last + 1 + refills)))
        self._carry_out(self.tx, actions)
        return block

    def run_block(self, refills: int = 2) -> BlockId:
        """Run one more block until nothing moves any more; whatever came of it."""
        block = self.begin_block(refills)
        self.settle()
        return block

    def settle(self) -> None:
        """Deliver and compute until nothing moves."""
        while self.advance():
            pass

    def advance(self) -> bool:
        """Deliver one frame or feed one event; return whether there was one."""
        if not self._todo:
            return False
        item = self._todo.popleft()
        if len(item) == 2:
            self._arrive(*item)
        else:
            side, block, event = item
            if side.session is not None:
                side.session, actions = side.session.feed(block, event)
                self._carry_out(side, actions)
        return True

    def time_out(self) -> None:
        """Let both sides lose patience with every open block, as their shells would."""
        why = a.Failed("TimedOut", "the test lost patience")
        for side in self.sides:
            side.session, actions = side.running.give_up(side.running.open_blocks(), why)
            self._carry_out(side, actions)
        self.settle()

    def inject(self, side: Side, sealed: bytes) -> None:
        """Put bytes on the wire to one side."""
        self._todo.append((side, sealed))
        self.settle()

    def _arrive(self, side: Side, sealed: bytes) -> None:
        frame: bytes | None = sealed
        if side.incoming is not None:
            frame = side.incoming.open(sealed)
        if frame is None:
            side.refused.append("junk")
            return
        try:
            side.session, actions = side.running.receive(frame)
        except RemoteProtocolError as why:
            side.refused.append(str(why))
            return
        self._carry_out(side, actions)

    # Carrying out, inline and in order.
    def _carry_out(self, side: Side, actions: Iterable[BlockAction]) -> None:
        for item in actions:
            side.done.append(item)
            event = self._do(side, item.block, item.action)
            if event is not None:
                self._todo.append((side, item.block, event))

    def _do(self, side: Side, block: BlockId, action: a.Action) -> a.Event | None:
        match action:
            case a.Send(frame):
                self._send(side, frame.wire())
            case a.Tag(role, covered):
                try:
                    return a.Tagged(role, side.tag(PadAddress(side.running.epoch, block, role), covered))
                except PadsExhausted as why:
                    return a.Failed("PadsExhausted", str(why))
            case a.CheckTag(role, covered, tag):
                side.attempts += 1
                try:
                    side.authenticator.check(PadAddress(side.running.epoch, block, role), covered, tag)
                except (AuthenticationFailed, PadsExhausted):
                    return a.TagRefused(role)
                return a.TagAccepted(role)
            case a.Draw(size):
                return a.Drawn(side.randomness.draw(size))
            case a.Persist(record):
                side.commits.persist(record)
            case a.Compute(job, function, arguments):
                try:
                    return a.Computed(job, function(*arguments))
                except LocalProtocolError:
                    raise
                except HeliographError as why:
                    return a.Failed(type(why).__name__, str(why))
            case a.Emit(parameters):
                self._light[block] = (parameters.light, side.randomness.draw(32))
                self._shine(block)
            case a.Collect(parameters):
                self._armed[block] = (parameters.light, side.randomness.draw(32))
                self._shine(block)
            case a.Discard():
                side.records.discard(block)
            case a.Finish():
                pass
        return None

    def _send(self, side: Side, frame: bytes) -> None:
        if not self.connected:
            return
        sealed = side.outgoing.seal(frame) if side.outgoing is not None else frame
        self.frames.append((side.own, sealed))
        for piece in self.wire(side.own, sealed):
            self._todo.append((self.other(side), piece))

    def _shine(self, block: BlockId) -> None:
        """When light and detectors are both there: sample the clicks as the fibre process does."""
        if block not in self._light or block not in self._armed:
            return
        (light, seed), (_, basis_seed) = self._light.pop(block), self._armed.pop(block)
        optics = (self._seed, int(block))
        clicks = _clicks(self._channel, light, seed, basis_seed, optics, self._attack)  # type: ignore[arg-type]
        double = clicks.patterns == 3
        coins = np.unpackbits(np.frombuffer(self.rx.randomness.draw(len(clicks.slots) // 8 + 1), np.uint8))
        bits = np.where(double, coins[: len(double)], clicks.patterns >> 1).astype(np.uint8)
        bases = expand_bases(basis_seed, clicks.slots, light.receiver_z_probability)
        record = DetectionRecord(light, clicks.slots, bases, bits, int(double.sum()), 0)
        self._todo.append((self.tx, block, a.Emitted(SeededPulses(light, seed))))
        self._todo.append((self.rx, block, a.Clicked(record)))


def shake_hands(dialling: Side, listening: Side) -> tuple[Established, Established]:
    """Let one side dial the other, as ``site.greeting`` does; return what each has established."""
    doors, other = dialling.doors, listening.doors
    own = doors.presence()
    initiator = Initiator(doors.identity, own, doors.draw(), doors.now())
    theirs = other.presence()
    responder = Responder(other.identity, theirs, other.draw(), other.now())
    last, at_initiator = initiator.confirm(_reply(initiator, responder, doors.to_try(), other.of))
    doors.accept(at_initiator, own)
    at_responder = responder.finish(last)
    other.accept(at_responder, theirs)
    other.confirmed(theirs)
    initiator.welcome(responder.welcome())
    doors.confirmed(own)
    return at_initiator, at_responder


def _reply(initiator: Initiator, responder: Responder, doors: tuple[Door, ...], of: Callable[[int], Door]) -> bytes:
    """Knock at one door after another, as the dialling site does on new connections."""
    for door in doors[:-1]:
        with suppress(RemoteProtocolError):
            return responder.reply(initiator.hello(door), of)
    return responder.reply(initiator.hello(doors[-1]), of)


@lru_cache(maxsize=128)
def _clicks(
    channel: Channel,
    light: LightParameters,
    seed: bytes,
    basis_seed: bytes,
    optics: tuple[int, int],
    attack: Attack | None,
) -> Clicks:
    """Sample a block's clicks; a block run again from the same seeds, to be attacked, finds them here."""
    return sample_clicks(channel, SeededPulses(light, seed), basis_seed, np.random.default_rng(optics), attack)
