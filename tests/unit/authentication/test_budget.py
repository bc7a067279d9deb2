"""Authentication key: scarcer is never milder, an alarm is told once, a forecast is a number or nothing."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from heliograph.authentication.budget import (
    DirectionBits,
    Level,
    PadBudget,
    Sample,
    forecast,
    level_of,
    to_tell,
)
from heliograph.authentication.pads import PAD_SET_BITS, PadDirection, PadRole, pad_set_bits

LEVELS = st.sampled_from(list(Level))


@given(st.integers(-3, 100))
def test_fewer_pads_are_never_a_milder_level(pads):
    assert level_of(pads) >= level_of(pads + 1)


def test_the_levels_are_where_they_are_documented():
    assert [level_of(n).name.lower() for n in (0, 1, 2, 3, 4, 5, 7, 8, 16)] == [
        "empty", "floor", "floor", "alarm", "alarm", "throttle", "throttle", "normal", "normal",
    ]  # fmt: skip


def test_a_role_is_of_one_direction_and_both_make_a_set():
    assert {role for role in PadRole if role.direction is PadDirection.TO_TRANSMITTER} == {
        PadRole.CLOSURE,
        PadRole.PARTICIPANT,
        PadRole.ACKNOWLEDGEMENT,
    }
    assert [pad_set_bits(way) for way in PadDirection] == [1024, 768]
    assert sum(pad_set_bits(way) for way in PadDirection) == PAD_SET_BITS


# Telling.
def lines(levels):
    """Return the levels that an operator reads of."""
    told, read = Level.NORMAL, []
    for now in levels:
        tell = to_tell(told, now)
        if tell is not told:
            read.append(tell)
        told = tell
    return read


def test_a_crossing_is_told_once_and_not_with_every_block():
    assert lines([level_of(n) for n in (8, 7, 4, 5, 4, 5, 4, 3, 5, 7, 4)]) == [Level.ALARM]


def test_worse_is_told_again_and_the_end_only_when_it_is_over():
    pool = (16, 7, 4, 2, 4, 7, 2, 0, 4, 7, 8, 7, 8, 4)
    assert lines([level_of(n) for n in pool]) == [Level.ALARM, Level.FLOOR, Level.EMPTY, Level.NORMAL, Level.ALARM]


def test_throttling_is_nobodys_business():
    assert lines([Level.THROTTLE, Level.NORMAL, Level.THROTTLE]) == []


@given(LEVELS, LEVELS)
def test_what_was_told_is_not_told_again(told, now):
    assert to_tell(to_tell(told, now), now) is to_tell(told, now)


# Where the bits are.
@given(*[st.integers(0, 10**6)] * 4)
def test_every_bit_is_somewhere(spent, lost, reserved, free):
    way = DirectionBits(spent + lost, reserved + free, spent, reserved + free, reserved)
    assert (way.lost, way.free, way.used) == (lost, free, spent + lost + reserved)
    assert way.bits_in + way.refilled == way.used + way.free


def test_a_pool_has_the_level_of_its_sets():
    way = DirectionBits(0, 0, 0, 0, 0)
    assert PadBudget(3, way, way).level is Level.ALARM


# How long they last.
def test_a_pool_that_shrinks_ends_when_the_line_says():
    samples = [Sample(0.0, 0, 0), Sample(10.0, 1000, 400)]
    found = forecast(samples, 600, 60.0)
    assert (found.used_bps, found.refilled_bps) == (100.0, 40.0)
    assert found.seconds_left == 10.0
    assert found.seconds_left_without_refill == 6.0


def test_a_pool_that_holds_or_grows_has_no_end_but_would_have_one_without_refill():
    for refilled in (1000, 2000):
        found = forecast([Sample(0.0, 0, 0), Sample(10.0, 1000, refilled)], 600, 60.0)
        assert found.seconds_left is None
        assert found.seconds_left_without_refill == 6.0


def test_only_the_window_counts():
    samples = [Sample(0.0, 0, 0), Sample(100.0, 10**6, 0), Sample(110.0, 10**6 + 100, 100)]
    assert forecast(samples, 600, 60.0).used_bps == 10.0
    assert forecast(samples, 600, 1000.0).used_bps > 9000


def test_nothing_is_known_before_two_samples():
    for samples in ([], [Sample(1.0, 5, 5)], [Sample(1.0, 5, 5), Sample(1.0, 9, 5)]):
        found = forecast(samples, 600, 60.0)
        assert (found.used_bps, found.seconds_left, found.seconds_left_without_refill) == (0.0, None, None)


def test_an_empty_pool_is_at_its_end_now():
    for samples in ([], [Sample(0.0, 0, 0), Sample(10.0, 1000, 2000)]):
        found = forecast(samples, 0, 60.0)
        assert (found.seconds_left, found.seconds_left_without_refill) == (0.0, 0.0)


@given(
    st.lists(st.tuples(st.floats(0, 1e12), st.integers(0, 2**62), st.integers(0, 2**62)), max_size=8),
    st.integers(0, 2**62),
    st.floats(0, 1e9),
    st.booleans(),
)
def test_a_forecast_is_never_negative_nor_nan(rows, free, window_s, in_order):
    if in_order:
        rows = list(zip(*map(sorted, zip(*rows, strict=True)), strict=True))
    found = forecast([Sample(*row) for row in rows], free, window_s)
    for rate in (found.used_bps, found.refilled_bps):
        assert rate >= 0
        assert math.isfinite(rate)
    for seconds in (found.seconds_left, found.seconds_left_without_refill):
        assert seconds is None or (seconds >= 0 and math.isfinite(seconds))
    if found.seconds_left is not None:
        assert found.seconds_left_without_refill is not None
        assert found.seconds_left_without_refill <= found.seconds_left
