"""ETSI GS QKD 004 V2.1.1 in its de-facto encoding: bytes worked out by hand, round trips, and what is refused."""

import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from heliograph.errors import RemoteProtocolError
from heliograph.kme.etsi004 import (
    HEADER_BYTES,
    NULL_KSID,
    REQUEST_BYTES_MAX,
    Close,
    CloseReply,
    GetKey,
    GetKeyReply,
    OpenConnect,
    OpenReply,
    Qos,
    Status,
    encode,
    payload_length,
    read_reply,
    read_request,
)

KSID = bytes(range(16))
QOS = Qos(32, 5000, 100, 10, 1, 2000, 3600, "application/json")
PACKED_QOS = struct.pack(">7I", 32, 5000, 100, 10, 1, 2000, 3600) + b"application/json".ljust(256, b"\0")


def split(data):
    header, payload = data[:HEADER_BYTES], data[HEADER_BYTES:]
    assert payload_length(header, 1 << 20) == len(payload)
    return header, payload


# By hand, after the description of the encoding at the head of kme/etsi004.py: service type and payload.
BY_HAND = [
    (OpenConnect("qkd://a", "qkd://b", QOS, KSID), 2, b"qkd://a\0qkd://b\0" + PACKED_QOS + KSID),
    (OpenReply(Status.SUCCESSFUL, QOS, KSID), 3, b"\0\0\0\0" + PACKED_QOS + KSID),
    (OpenReply(Status.QOS_NOT_MET, QOS, NULL_KSID), 3, b"\0\0\0\7" + PACKED_QOS + NULL_KSID),
    (OpenReply(Status.KSID_IN_USE), 3, b"\0\0\0\5"),
    (GetKey(KSID, 7, 1024), 4, KSID + b"\0\0\0\7" + b"\0\0\4\0"),
    (
        GetKeyReply(Status.SUCCESSFUL, 7, b"k" * 32, b"{}", 2),
        5,
        b"\0\0\0\0" + b"\0\0\0\7" + b"\0\0\0\x20" + b"k" * 32 + b"\0\0\0\2{}",
    ),
    (GetKeyReply(Status.METADATA_SIZE, metadata_size=36), 5, b"\0\0\0\x08" + b"\0\0\0\x24"),
    (GetKeyReply(Status.INSUFFICIENT_KEY), 5, b"\0\0\0\2"),
    (Close(KSID), 8, KSID),
    (CloseReply(Status.SUCCESSFUL), 9, b"\0\0\0\0"),
]


# The text form, by hand too, after the serialisers of the C library that the head of kme/etsi004.py names.
NUMBERS = PACKED_QOS[:28]
TEXT = [
    (
        OpenConnect("qkd://a", "qkd://b", QOS, KSID, text=True),
        b"qkd://a\0qkd://b\0" + NUMBERS + b"application/json\0" + KSID,
    ),
    (OpenReply(Status.SUCCESSFUL, QOS, KSID), b"\0\0\0\0" + NUMBERS + b"application/json\0" + KSID),
    (OpenReply(Status.KSID_IN_USE), b"\0\0\0\5" + bytes(28) + b"\0" + NULL_KSID),
    (GetKey(KSID, 7, 3, text=True), KSID + b"\0\0\0\7" + b"\0\0\0\3" + bytes(3)),
    (
        GetKeyReply(Status.SUCCESSFUL, 7, b"k" * 32, b"{}", 2),
        b"\0\0\0\0" + b"\0\0\0\7" + b"\0\0\0\x20" + b"k" * 32 + b"\0\0\0\2{}",
    ),
    (GetKeyReply(Status.INSUFFICIENT_KEY), b"\0\0\0\2" + bytes(12)),
    (GetKeyReply(Status.METADATA_SIZE, metadata_size=36), b"\0\0\0\x08" + bytes(8) + b"\0\0\0\x24" + bytes(36)),
    (CloseReply(Status.SUCCESSFUL), b"\0\0\0\0"),
]


@pytest.mark.parametrize(("message", "payload"), TEXT)
def test_every_message_of_the_text_form_has_the_bytes_of_its_library(message, payload):
    header, written = split(encode(message, text=True))
    assert written == payload
    if isinstance(message, OpenConnect | GetKey):
        assert read_request(header, written) == message


@pytest.mark.parametrize(("message", "service", "payload"), BY_HAND)
def test_every_message_has_the_bytes_of_the_description(message, service, payload):
    data = encode(message)
    assert data == bytes([1, 0, 1, service]) + struct.pack(">I", len(payload)) + payload
    read = read_request if service in {2, 4, 8} else read_reply
    assert read(*split(data)) == message


def test_status_codes_are_those_of_v2_1_1():
    assert [status.value for status in Status] == list(range(9))


@settings(max_examples=200, deadline=None)
@given(
    numbers=st.tuples(*[st.integers(0, 2**32 - 1)] * 7),
    uris=st.tuples(*[st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=200)] * 2),
    ksid=st.binary(min_size=16, max_size=16),
)
def test_what_is_written_is_read(numbers, uris, ksid):
    message = OpenConnect(*uris, Qos(*numbers, "application/json"), ksid)
    assert read_request(*split(encode(message))) == message


@pytest.mark.parametrize(
    ("service", "payload"),
    [
        (2, b""),
        (2, b"a\0b\0" + PACKED_QOS),  # no KSID
        (2, b"a\0b\0" + PACKED_QOS + KSID + b"x"),
        (2, b"a\0" + PACKED_QOS + KSID),
        (2, b"\0b\0" + PACKED_QOS + KSID),  # no source
        (2, b"a\0\0" + PACKED_QOS + KSID),
        (2, b"\xff\0b\0" + PACKED_QOS + KSID),
        (2, b"a\0b\0" + PACKED_QOS[:28] + b"\xe4".ljust(256, b"\0") + KSID),
        (2, b"a\0b\0" + PACKED_QOS[:28] + b"application/json" + KSID.replace(b"\0", b"\1")),  # never ends
        (2, b"a\0b\0" + PACKED_QOS[:28] + b"x" * 256 + b"\0" + KSID),
        (2, b"a\0b\0" + PACKED_QOS[:28] + b"application/json\0" + KSID[:15]),
        (2, b"a\0b\0" + PACKED_QOS[:27]),
        (4, KSID + b"\0\0\0\7" + b"\0\0\0\4" + b"abc"),
        (4, KSID),
        (4, KSID + bytes(9)),
        (8, KSID[:15]),
        (8, KSID + b"x"),
        (3, b"\0\0\0\0" + PACKED_QOS + KSID),  # a response is no request
        (0, b""),
        (255, b""),
    ],
)
def test_what_is_no_request_is_refused(service, payload):
    header = bytes([1, 0, 1, service]) + struct.pack(">I", len(payload))
    with pytest.raises(RemoteProtocolError):
        read_request(header, payload)


def test_another_version_and_a_huge_payload_are_refused_by_the_header():
    with pytest.raises(RemoteProtocolError, match="wire version 2"):
        payload_length(bytes([2, 0, 0, 4]) + bytes(4), REQUEST_BYTES_MAX)
    with pytest.raises(RemoteProtocolError, match="at most"):
        payload_length(bytes([1, 0, 1, 4]) + b"\xff" * 4, REQUEST_BYTES_MAX)


@settings(max_examples=500, deadline=None)
@given(service=st.integers(0, 255), payload=st.binary(max_size=400))
def test_garbage_is_refused_and_nothing_else_happens(service, payload):
    header = bytes([1, 0, 1, service]) + struct.pack(">I", len(payload))
    for read in (read_request, read_reply):
        try:
            message = read(header, payload)
        except RemoteProtocolError:
            continue
        assert read(*split(encode(message))) == message


def test_a_mimetype_whose_first_byte_is_0_means_no_metadata():
    packed = PACKED_QOS[:28] + b"\0application/json".ljust(256, b"\0")
    header = bytes([1, 0, 1, 2]) + bytes(4)
    assert read_request(header, b"a\0b\0" + packed + KSID).qos.mimetype == ""


def test_a_key_does_not_print():
    assert "kkkk" not in repr(GetKeyReply(Status.SUCCESSFUL, 0, b"k" * 32))
