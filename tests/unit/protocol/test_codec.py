"""Every message has one encoding; any other bytes are refused, and by nothing but RemoteProtocolError."""

from __future__ import annotations

import typing

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heliograph.errors import RemoteProtocolError
from heliograph.protocol import messages as m
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.frames import Direction, Frame, parse_frame
from heliograph.protocol.identifiers import key_id_bytes, new_key_ids, parse_key_ids

KINDS = typing.get_args(m.Message)
BLOB = st.binary(max_size=80)


def values(hint, meta=None):
    """Return a strategy for a field's type, within the bounds of its own annotation."""
    if typing.get_origin(hint) is typing.Annotated:
        return values(*typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return st.lists(values(typing.get_args(hint)[0]), max_size=6).map(tuple)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(meta.ge, meta.le if meta.lt is None else meta.lt - 1)
    kind = {bytes: st.binary, str: st.text}[hint]
    return kind(min_size=meta.min_length or 0, max_size=min(meta.max_length, 80))


def strategy(kind):
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})


MESSAGES = st.one_of(*(strategy(kind) for kind in KINDS))


@settings(max_examples=400, deadline=None)
@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message):
    wire = encode(message)
    assert decode(wire) == message
    assert type(decode(wire)) is type(message)
    assert encode(decode(wire)) == wire


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x91\xa8Propos\xff\xfe")
@example(b"\x91" * 5000)
@example(msgspec.msgpack.encode(["Decision", True, [2**70 - 2**70], b""]))
def test_random_bytes_are_a_message_or_refused(data):
    try:
        message = decode(data)
    except RemoteProtocolError:
        return
    assert encode(message) == data


@settings(max_examples=600, deadline=None)
@given(MESSAGES, st.data())
def test_a_bent_message_is_another_message_or_refused(message, data):
    """Bytes near the real ones: random bytes alone hardly ever reach the inner checks."""
    wire = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(wire))
    except RemoteProtocolError:
        return
    assert encode(found) == bytes(wire)


def packed(*items):
    return msgspec.msgpack.encode(list(items))


SECOND_SPELLINGS = {
    "a field too many": packed("Settlement", 0),
    "a field too few": packed("Proposal", "test"),
    "trailing bytes": encode(m.Settlement()) + b"\xc0",
    "two messages": encode(m.Settlement()) * 2,
    "a long integer": b"\x93\xabParityReply\xcf" + (7).to_bytes(8, "big") + b"\xc4\x01\x00",
    "a long string head": b"\xdc\x00\x01\xaaSettlement",
    "a map": msgspec.msgpack.encode({"type": "Settlement"}),
    "a negative count": packed("ParityReply", -1, b""),
    "a count beyond 48 bits": packed("ParityReply", 2**48, b""),
    "a float for a count": packed("ParityReply", 7.0, b""),
    "text for bytes": packed("ParityReply", 7, "abc"),
    "an unknown message": packed("Key", b"secret"),
    "an empty name": packed("Proposal", "", bytes(32)),
    "a name too long": packed("Proposal", "x" * 65, bytes(32)),
    "a short digest": packed("Proposal", "test", bytes(31)),
    "width zero": packed("QuantumPhaseClosed", 0, 0, b"", b"", 0, 0),
    "null for a boolean": packed("Acknowledgement", None, b""),
}


@pytest.mark.parametrize("what", SECOND_SPELLINGS)
def test_refused(what):
    with pytest.raises(RemoteProtocolError) as caught:
        decode(SECOND_SPELLINGS[what])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_of_a_message_is_without_bound(kind):
    """A new kind of field is red here until it has a bound and the properties above cover it."""
    for hint in typing.get_type_hints(kind, include_extras=True).values():
        assert hint is bool or typing.get_origin(hint) is typing.Annotated
    strategy(kind)


@pytest.mark.parametrize("block", [2**48, 2**63, 2**64 - 1])
def test_a_block_number_beyond_all_stores_is_refused(block):
    with pytest.raises(RemoteProtocolError):
        parse_frame(Frame(Direction.TO_RECEIVER, 1, block, 0, 0, b"").wire())


FRAMES = st.builds(
    Frame,
    st.sampled_from(Direction),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**48 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    BLOB,
)


@given(FRAMES, st.booleans())
def test_a_frame_comes_back_as_it_was(frame, tagged):
    if tagged:
        frame = Frame(*(getattr(frame, n) for n in ("direction", "epoch", "block", "sequence", "last_seen", "body")),
                      tagged=True, tag=bytes(range(16)))  # fmt: skip
    assert parse_frame(frame.wire()) == frame
    assert frame.wire() == frame.covered() + frame.tag


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=120))
def test_random_bytes_are_a_frame_or_refused(data):
    try:
        frame = parse_frame(data)
    except RemoteProtocolError:
        return
    assert frame.wire() == data


@given(FRAMES, st.data())
def test_a_bent_frame_is_another_frame_or_refused(frame, data):
    wire = bytearray(frame.wire())
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = parse_frame(bytes(wire))
    except RemoteProtocolError:
        return
    assert found != frame
    assert found.wire() == bytes(wire)


@given(FRAMES, FRAMES)
def test_what_a_tag_covers_names_one_frame_only(one, other):
    assert (one.covered() == other.covered()) == (one == other)


@given(st.binary(max_size=20).map(lambda b: b * 16))
def test_key_ids_are_random_version_4_uuids_and_travel_as_16_bytes(random):
    names = new_key_ids(random)
    assert len(names) == len(random) // 16
    assert all(name[14] == "4" and name[19] in "89ab" for name in names)
    if len(set(names)) == len(names):
        assert parse_key_ids(key_id_bytes(names), len(names)) == names


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(16), 1),  # version 0
        (key_id_bytes(new_key_ids(bytes(16))) * 2, 2),  # twice the same
        (key_id_bytes(new_key_ids(bytes(16))), 2),
        (key_id_bytes(new_key_ids(bytes(16))), 0),
        (b"\x01", 1),
    ],
)
def test_key_ids_that_are_not_distinct_random_uuids_are_refused(data, expected):
    with pytest.raises(RemoteProtocolError):
        parse_key_ids(data, expected)
