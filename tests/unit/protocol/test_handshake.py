"""Who is there: each wrong book, registration, name or replay is refused in one clear line and changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest

from heliograph.errors import RemoteProtocolError
from heliograph.protocol.handshake import Door, Initiator, Presence, Responder
from heliograph.protocol.hello import HELLO_BYTES_MAX, Hello, HelloConfirm, HelloReply
from heliograph.protocol.records import Marks
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
REGISTRATION = quick_registration()
OWN, THEIRS = Marks(1, 7, 6, 5, 4), Marks(1, 6, 7, 5, 4)


class Dialling(Initiator):
    """An initiator with its door in hand."""

    def hello(self):
        return super().hello(self.given)


class Listening(Responder):
    """A responder with one door, whatever generation is asked for."""

    def reply(self, wire):
        return super().reply(wire, lambda _: self.given)


def side(kind, registration, site, marks, number, key):
    """Return one end; ``number`` makes its nonce, its exchange and its instance."""
    presence = Presence(site, marks, bytes([number]) * 16)
    made = kind(registration.identity(), presence, bytes([number]) * 64, 0.0)
    made.given = Door(0, key)
    return made


def initiator(number=1, *, registration=REGISTRATION, site="site-a", key=KEY, marks=OWN):
    return side(Dialling, registration, site, marks, number, key)


def responder(number=2, *, registration=REGISTRATION, site="site-b", key=KEY, marks=THEIRS):
    return side(Listening, registration, site, marks, number, key)


def replace_field(wire, **fields):
    return msgspec.msgpack.encode(msgspec.structs.replace(msgspec.msgpack.decode(wire, type=Hello), **fields))


def shake(dialling, listening):
    last, at_dialling = dialling.confirm(listening.reply(dialling.hello()))
    return at_dialling, listening.finish(last)


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    return text


def test_both_ends_learn_the_peers_marks_and_one_transcript():
    at_a, at_b = shake(initiator(), responder())
    assert (at_a.peer, at_b.peer) == (THEIRS, OWN)
    assert at_a.transcript == at_b.transcript != b""
    assert len(at_a.transcript) < 2 * HELLO_BYTES_MAX


def test_either_site_may_dial():
    at_b, at_a = shake(initiator(site="site-b", marks=THEIRS), responder(site="site-a", marks=OWN))
    assert (at_a.peer, at_b.peer) == (THEIRS, OWN)


def test_two_connections_have_two_transcripts():
    first, _ = shake(initiator(1), responder(2))
    second, _ = shake(initiator(3), responder(4))
    assert first.transcript != second.transcript


DIFFERENT = {
    "book": {"key": OTHER_KEY},
    "registration": {"registration": replace(REGISTRATION, eps_total_max=1e-5)},
    "parameters": {
        "registration": replace(REGISTRATION, parameters=(replace(REGISTRATION.parameters[0], secret_key_length=7000),))
    },
    "order of sites": {"registration": replace(REGISTRATION, transmitter_site="site-b", receiver_site="site-a")},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_site_with_another(what):
    """The end with another book or registration is refused by the other one, whichever of the two dialled."""
    with pytest.raises(RemoteProtocolError) as caught:
        shake(initiator(**DIFFERENT[what]), responder())
    assert "'a-b' are not the same as here" in one_line(caught)
    with pytest.raises(RemoteProtocolError) as caught:
        shake(initiator(), responder(**DIFFERENT[what]))
    assert "site-b does not prove itself" in one_line(caught)


def test_another_link_is_refused_by_its_name():
    with pytest.raises(RemoteProtocolError) as caught:
        responder().reply(initiator(registration=replace(REGISTRATION, link="a-c")).hello())
    assert "asks for link 'a-c'; here is 'a-b'" in one_line(caught)


def test_a_site_of_another_name_is_refused():
    stranger = replace(REGISTRATION, transmitter_site="site-x")
    with pytest.raises(RemoteProtocolError) as caught:
        responder().reply(initiator(registration=stranger, site="site-x").hello())
    assert "calls itself 'site-x'; registered is 'site-a'" in one_line(caught)


def test_a_site_that_met_itself_is_refused():
    with pytest.raises(RemoteProtocolError, match="calls itself 'site-b'"):
        responder().reply(initiator(site="site-b").hello())


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_wire_version_is_refused(version):
    hello = replace_field(initiator().hello(), version=version)
    with pytest.raises(RemoteProtocolError) as caught:
        responder().reply(hello)
    assert f"the peer speaks wire version {version}, this site 1" in one_line(caught)


def test_a_replayed_confirm_is_refused():
    """Eve repeats a recorded dialogue; the listening site's fresh nonce makes the old proof worthless."""
    old, listening = initiator(1), responder(2)
    hello = old.hello()
    last, _ = old.confirm(listening.reply(hello))
    listening.finish(last)
    again = responder(3)
    again.reply(hello)
    with pytest.raises(RemoteProtocolError, match="does not prove itself"):
        again.finish(last)


def test_a_replayed_reply_is_refused():
    old, listening = initiator(1), responder(2)
    reply = listening.reply(old.hello())
    fresh = initiator(3)
    fresh.hello()
    with pytest.raises(RemoteProtocolError, match="does not prove itself"):
        fresh.confirm(reply)


def test_a_reflected_handshake_is_refused():
    """Eve sends a site its own messages back."""
    dialling = initiator()
    hello = dialling.hello()
    with pytest.raises(RemoteProtocolError):
        dialling.confirm(hello)
    with pytest.raises(RemoteProtocolError, match="calls itself"):
        responder(site="site-a", marks=OWN).reply(hello)
    listening = responder()
    reply = listening.reply(hello)
    with pytest.raises(RemoteProtocolError):
        listening.finish(reply)
    mirrored = msgspec.msgpack.decode(reply, type=HelloReply)
    with pytest.raises(RemoteProtocolError, match="does not prove itself"):
        listening.finish(msgspec.msgpack.encode(HelloConfirm(mirrored.mac, b"")))


def test_every_flipped_bit_of_the_handshake_is_refused():
    for step in ("hello", "reply", "confirm"):
        sample = {"hello": initiator().hello()}
        listening = responder()
        sample["reply"] = listening.reply(sample["hello"])
        sample["confirm"], _ = (honest := initiator()).hello() and honest.confirm(sample["reply"])
        for bit in range(8 * len(sample[step])):
            bent = bytearray(sample[step])
            bent[bit // 8] ^= 1 << bit % 8
            wires = {**sample, step: bytes(bent)}
            with pytest.raises(RemoteProtocolError):
                dialogue(wires, step)


def dialogue(wires, bent):
    """Let both honest ends go on with what arrives when one message was bent on the way."""
    dialling, listening = initiator(), responder()
    dialling.hello()
    reply = listening.reply(wires["hello"])
    if bent == "hello":
        assert reply != wires["reply"]
    last, _ = dialling.confirm(wires["reply"] if bent == "reply" else reply)
    listening.finish(wires["confirm"] if bent == "confirm" else last)


def test_every_truncated_or_lengthened_message_is_refused():
    dialling, listening = initiator(), responder()
    hello = dialling.hello()
    for cut in range(len(hello)):
        with pytest.raises(RemoteProtocolError):
            responder().reply(hello[:cut])
    reply = listening.reply(hello)
    for cut in range(len(reply)):
        with pytest.raises(RemoteProtocolError):
            dialling.confirm(reply[:cut])
    last, _ = dialling.confirm(reply)
    for cut in range(len(last)):
        with pytest.raises(RemoteProtocolError):
            listening.finish(last[:cut])
    for extra in (b"\0", b"\xc0", bytes(40)):
        with pytest.raises(RemoteProtocolError):
            responder().reply(hello + extra)
        with pytest.raises(RemoteProtocolError):
            dialling.confirm(reply + extra)
        with pytest.raises(RemoteProtocolError):
            listening.finish(last + extra)
    listening.finish(last)  # nothing of all this moved it


def test_random_bytes_are_refused_and_nothing_else():
    dice = random.Random(1)
    dialling, listening = initiator(), responder()
    listening.reply(dialling.hello())
    for _ in range(3000):
        junk = dice.randbytes(dice.randrange(120))
        for take in (responder().reply, dialling.confirm, listening.finish):
            with pytest.raises(RemoteProtocolError):
                take(junk)


def test_a_text_that_is_not_utf_8_is_refused():
    hello = initiator().hello().replace(b"site-a", b"site-\xff")
    with pytest.raises(RemoteProtocolError, match="is the other end a Heliograph site"):
        responder().reply(hello)


def test_a_refused_handshake_changes_no_store(tmp_path):
    """The marks, pads and ledgers of both sites after a whole night of wrong dialogues are what they were."""
    pair = Pair(REGISTRATION, quick_channel(), tmp_path / "pair")
    pair.run_block()
    before = [(s.records.marks(), s.records.totals(), bytes(s.book)) for s in pair.sides]
    for number in range(50):
        for side in pair.sides:
            marks = side.records.marks()
            here = responder(number, site=side.site, key=side.records.door.in_use().resync_key, marks=marks)
            there = "site-a" if side.site == "site-b" else "site-b"
            eve = initiator(number, site=there, key=OTHER_KEY, marks=Marks(number, 99, 99, 0, 0))
            here.reply(eve.hello())
            with pytest.raises(RemoteProtocolError):
                here.finish(msgspec.msgpack.encode(HelloConfirm(bytes(32), b"")))
    assert [(s.records.marks(), s.records.totals(), bytes(s.book)) for s in pair.sides] == before
    pair.connect()
    assert pair.run_block() == 9


class AnyVersion:
    """A site that would speak whatever version it is told: only the proofs stand between it and a downgrade."""

    def _check_name(self, version, site):
        del version, site


class LenientDialling(AnyVersion, Dialling):
    pass


class LenientListening(AnyVersion, Listening):
    pass


def lenient():
    return (
        side(LenientDialling, REGISTRATION, "site-a", OWN, 1, KEY),
        side(LenientListening, REGISTRATION, "site-b", THEIRS, 2, KEY),
    )


def test_sites_that_speak_any_version_connect_when_nobody_interferes():
    shake(*lenient())


@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_version_changed_on_the_way_is_refused_even_by_sites_that_speak_any(version):
    """The version is under both proofs: a peer in the middle cannot talk two sites down to an older one."""
    dialling, listening = lenient()
    reply = listening.reply(replace_field(dialling.hello(), version=version))
    with pytest.raises(RemoteProtocolError, match="does not prove itself"):
        dialling.confirm(reply)  # the initiator never confirms, so the responder never believes

    dialling, listening = lenient()
    reply = msgspec.msgpack.decode(listening.reply(dialling.hello()), type=HelloReply)
    with pytest.raises(RemoteProtocolError, match="does not prove itself"):
        dialling.confirm(msgspec.msgpack.encode(msgspec.structs.replace(reply, version=version)))


class Credulous(LenientDialling):
    """An initiator that believes every proof."""

    def _check_mac(self, mac, label, *parts):
        del mac, label, parts


def test_a_version_changed_on_the_way_is_refused_by_the_listener_too():
    """Its peer's confirmation covers the Hello as it was sent, not as it came."""
    _, listening = lenient()
    dialling = side(Credulous, REGISTRATION, "site-a", OWN, 1, KEY)
    confirm, _ = dialling.confirm(listening.reply(replace_field(dialling.hello(), version=0)))
    with pytest.raises(RemoteProtocolError, match="does not prove itself"):
        listening.finish(confirm)
