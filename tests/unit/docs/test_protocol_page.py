"""docs/protocol.md is enough to write the other end: here it is written again from the page, without our codec."""

import hashlib
import hmac
import struct

import msgspec
import pytest
from cryptography.hazmat.primitives.poly1305 import Poly1305

from heliograph.authentication.anchors.psk import make_book, secret_size
from heliograph.authentication.prefilter import FrameFilter, connection_key
from heliograph.protocol.handshake import Door, Initiator, Presence, Responder
from heliograph.protocol.records import Marks
from heliograph.testing.links import example_channel, example_registration
from heliograph.testing.pair import Pair
from heliograph.testing.randomness import SeededRandom

ROLES = {
    "Proposal": 0,
    "QuantumPhaseClosed": 1,
    "AmplificationSeed": 2,
    "ParticipantAccept": 3,
    "Decision": 4,
    "Acknowledgement": 5,
    "Settlement": 6,
}
REGISTRATION = example_registration()


def f(part):
    return struct.pack(">I", len(part)) + part


def g(frames):
    return struct.pack(">I", len(frames)) + b"".join(map(f, frames))


def prefix():
    names = (REGISTRATION.link, REGISTRATION.transmitter_site, REGISTRATION.receiver_site)
    record = msgspec.to_builtins(REGISTRATION)
    for pair in (*record["transmitter_pairs"], *record["receiver_pairs"]):
        del pair["also_there"], pair["also_here"], pair["key_sizes"]  # empty here
    assert record.pop("codes") == 0
    digest = hashlib.sha256(msgspec.msgpack.encode(record)).digest()
    return b"".join(map(f, (b"heliograph/1 block", *(name.encode() for name in names), digest)))


def test_every_tag_of_a_block_is_what_sections_1_and_5_say(tmp_path):
    pair = Pair(REGISTRATION, example_channel(), tmp_path, seed=1, prefilter=False)
    pair.run_block()
    book = make_book(SeededRandom(1, "book").draw(secret_size()))
    assert len(book) == 29_760
    pads = book[64 + 64 : 64 + 64 + 224]  # header, two pre-filter keys, pad set of block 1

    down, up, checked = [], [], []
    for _, wire in pair.frames:
        version, flags, direction, epoch, block, sequence, last_seen, length = struct.unpack(">BBBIQIII", wire[:27])
        covered, tag = wire[: 27 + length], wire[27 + length :]
        name = msgspec.msgpack.decode(covered[27:])[0]
        assert (version, epoch, block) == (1, 1, 1)
        assert flags == (name in ROLES)
        if name in ROLES:
            role = ROLES[name]
            transcripts = g(down) + g(up) if role in {2, 3} else b""
            pad = pads[32 * role : 32 * role + 32]
            assert Poly1305.generate_tag(pad, prefix() + bytes([role]) + transcripts + covered) == tag, name
            checked.append(name)
        expected = (ROLES[name], 0) if ROLES.get(name, 0) >= 4 else (len(up if direction else down), last_seen)
        assert (sequence, last_seen) == expected, name
        (up if direction else down).append(wire)
    assert checked == list(ROLES)


def test_the_handshake_and_its_macs_are_what_section_3_says():
    key, identity, marks = bytes(range(32)), REGISTRATION.identity(), Marks(1, 4, 3, 2, 9)
    here, there = (
        Presence(site, marks, instance * 16, before, seen, context)
        for site, instance, before, seen, context in (
            ("site-a", b"i", b"b" * 16, b"", b"c" * 32),
            ("site-b", b"j", b"", b"b" * 16, b"c" * 32),
        )
    )
    dialler, listener = Initiator(identity, here, b"n" * 64, 0.0), Responder(identity, there, b"m" * 64, 0.0)
    hello = dialler.hello(Door(7, key))
    reply = listener.reply(hello, lambda generation: Door(generation, key))
    confirm, _ = dialler.confirm(reply)
    listener.finish(confirm)
    mac_key = hmac.digest(key, b"heliograph/1 door", "sha256")

    def h(label, *parts):
        return hmac.digest(mac_key, b"heliograph/1 resync " + label + b"".join(map(f, (prefix(), *parts))), "sha256")

    five, context = [1, 4, 3, 2, 9], b"c" * 32
    said = ["Hello", 1, REGISTRATION.link, "site-a", 7, b"n" * 32, five, context, b"i" * 16, b"b" * 16, b"", b"", b""]
    assert hello == msgspec.msgpack.encode(said)
    answer = ["HelloReply", 1, "site-b", b"m" * 32, five, context, b"j" * 16, b"", b"b" * 16, b"", b"", bytes(32), b""]
    answer[-2] = h(b"reply", hello, msgspec.msgpack.encode(answer))
    assert reply == msgspec.msgpack.encode(answer)
    assert confirm == msgspec.msgpack.encode(["HelloConfirm", h(b"confirm", hello, reply), b""])
    assert listener.welcome() == msgspec.msgpack.encode(["HelloWelcome", h(b"welcome", confirm)])


@pytest.mark.parametrize("count", [0, 3])
def test_the_pre_filter_is_what_section_2_says(count):
    epoch_key, transcript = b"e" * 32, b"hello" + b"reply"
    key = hmac.digest(epoch_key, b"heliograph/1 prefilter" + transcript, "sha256")
    assert connection_key(epoch_key, transcript) == key
    sender = FrameFilter(key)
    for _ in range(count):
        sender.seal(b"earlier")
    assert sender.seal(b"frame") == b"frame" + hmac.digest(key, struct.pack(">Q", count) + b"frame", "sha256")[:16]
