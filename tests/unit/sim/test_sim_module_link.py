"""The wire between a module and the fibre: what it carries and what it refuses."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.protocol.module_link import (
    HEADER_BYTES,
    ORDER_BYTES_MAX,
    REPORT_BYTES_MAX,
    Arm,
    ClicksReported,
    Light,
    LightSent,
    ModuleError,
    decode_order,
    decode_report,
    encode_frame,
    frame_length,
    report_clicks,
)
from heliograph.types import LightParameters

LIGHT = LightParameters(1000, 1e9, (0.5, 0.1), (0.7, 0.3), 0.9, 0.8)
SEED = b"thirty-two bytes of hidden seed!"
ORDERS = [Light(0, LIGHT, SEED), Arm(2**63 - 1, LIGHT, SEED)]
REPORTS = [
    LightSent(7),
    ModuleError(7, "no"),
    report_clicks(7, np.array([0, 5, 999]), np.array([1, 2, 3], dtype=np.uint8)),
    report_clicks(7, np.array([], dtype=np.int64), np.array([], dtype=np.uint8)),
]


def payload(message):
    return encode_frame(message)[HEADER_BYTES:]


def tampered(message, **changes):
    """Encode the record with fields changed, added, or removed (None)."""
    fields = msgspec.msgpack.decode(payload(message)) | changes
    return msgspec.msgpack.encode({name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize("message", ORDERS)
def test_an_order_arrives_as_it_was_sent(message):
    assert decode_order(payload(message)) == message


@pytest.mark.parametrize("message", REPORTS)
def test_a_report_arrives_as_it_was_sent(message):
    assert decode_report(payload(message)) == message
    assert frame_length(encode_frame(message)[:HEADER_BYTES], REPORT_BYTES_MAX) == len(payload(message))


def test_clicks_arrive_as_arrays():
    slots, patterns = REPORTS[2].arrays(1000)
    assert slots.tolist() == [0, 5, 999]
    assert slots.dtype == np.int64
    assert patterns.tolist() == [1, 2, 3]


def test_light_parameters_written_as_integers_are_sent_as_reals():
    light = LightParameters(1000, 10**9, (1, 0), (0.7, 0.3), 0.9, 0.8)
    assert decode_order(payload(Light(1, light, SEED))).light == light


@pytest.mark.parametrize("message", ORDERS + REPORTS)
def test_no_part_of_a_record_is_printed_but_its_name_and_block(message):
    assert repr(message) == f"{type(message).__name__}(block={message.block})"


@pytest.mark.parametrize(
    "wrong",
    [
        {"block": -1},
        {"block": 2**63},
        {"block": 1.0},
        {"block": None},
        {"seed": SEED[:31]},
        {"seed": SEED + b"!"},
        {"seed": "thirty-two characters of a text!"},
        {"seed": None},
        {"extra": 1},
        {"record": "light_sent"},
        {"record": None},
        {"light": None},
        {"light": {}},
    ],
    ids=repr,
)
def test_an_order_with_a_wrong_field_is_refused(wrong):
    with pytest.raises(RemoteProtocolError):
        decode_order(tampered(ORDERS[0], **wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"pulses": 0},
        {"pulses": 2**48},
        {"clock_hz": float("nan")},
        {"clock_hz": 1000},
        {"intensities": [0.1, 0.5]},
        {"intensities": [0.5]},
        {"intensity_probabilities": [0.7, float("nan")]},
        {"receiver_z_probability": 1.0},
        {"extra": 0},
    ],
    ids=repr,
)
def test_impossible_light_is_refused(wrong):
    light = msgspec.to_builtins(LIGHT) | wrong
    with pytest.raises(RemoteProtocolError):
        decode_order(tampered(ORDERS[0], light=light))


def test_another_encoding_of_the_same_record_is_refused():
    fields = msgspec.msgpack.decode(payload(ORDERS[0]))
    reordered = msgspec.msgpack.encode(dict(reversed(fields.items())))
    doubled = payload(LightSent(7)).replace(b"\x82", b"\x83", 1) + msgspec.msgpack.encode("block") + b"\x07"
    with pytest.raises(RemoteProtocolError, match="canonical"):
        decode_order(reordered)
    with pytest.raises(RemoteProtocolError, match="canonical"):
        decode_report(doubled)
    with pytest.raises(RemoteProtocolError):
        decode_order(payload(ORDERS[0]) + b"\x00")


@pytest.mark.parametrize(
    ("slots", "patterns"),
    [
        ([5, 5], [1, 1]),
        ([5, 4], [1, 1]),
        ([-1, 4], [1, 1]),
        ([5, 1000], [1, 1]),
        ([5, 6], [1, 0]),
        ([5, 6], [1, 4]),
        ([5, 6], [1]),
        ([5], [1, 1]),
    ],
)
def test_clicks_that_cannot_be_are_refused(slots, patterns):
    report = ClicksReported(1, np.array(slots, dtype=">i8").tobytes(), bytes(patterns))
    with pytest.raises(RemoteProtocolError):
        decode_report(payload(report)).arrays(1000)


def test_an_empty_or_oversize_frame_is_refused_from_its_header():
    for length in (0, ORDER_BYTES_MAX + 1, 2**32 - 1):
        with pytest.raises(RemoteProtocolError, match="bytes"):
            frame_length(length.to_bytes(4, "big"), ORDER_BYTES_MAX)


def test_an_order_too_large_for_its_cap_is_not_sent():
    many = tuple(float(k) for k in range(900, 0, -1))
    light = LightParameters(1000, 1e9, many, (1 / 900,) * 900, 0.9, 0.8)
    with pytest.raises(LocalProtocolError):
        encode_frame(Light(1, light, SEED))


def test_an_order_is_no_report_and_the_reverse():
    with pytest.raises(RemoteProtocolError):
        decode_report(payload(ORDERS[0]))
    with pytest.raises(RemoteProtocolError):
        decode_order(payload(REPORTS[0]))


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else_happens(junk):
    for decode in (decode_order, decode_report):
        with pytest.raises(RemoteProtocolError):
            decode(junk)


@given(st.sampled_from(ORDERS + REPORTS), st.data())
def test_a_flipped_bit_gives_another_record_or_a_refusal(message, data):
    whole = bytearray(payload(message))
    position = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[position // 8] ^= 1 << position % 8
    try:
        other = (decode_order if message in ORDERS else decode_report)(bytes(whole))
    except RemoteProtocolError:
        return
    assert other != message
