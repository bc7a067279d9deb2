"""Failures slow the link down before they can drain its pads; success forgets them."""

from hypothesis import given
from hypothesis import strategies as st

from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.protocol.commitment import REFILLS_MAX
from heliograph.protocol.cutting import refills_fit
from heliograph.site.pacing import Pace
from heliograph.testing.clock import ManualClock


def pads_spent(pool, seconds):
    """How many pad sets a link spends in this time if every block fails at once."""
    clock = ManualClock()
    pace = Pace(clock)
    spent = 0
    while clock.now() < seconds and spent < pool:
        if pace.may_begin(pool - spent, 0, 2):
            spent += 1
            pace.failed()
        clock.advance(0.05)
    return spent


def test_a_link_that_makes_keys_has_its_blocks_in_flight():
    pace = Pace(ManualClock())
    assert pace.may_begin(16, 0, 2)
    assert pace.may_begin(16, 1, 2)
    assert not pace.may_begin(16, 2, 2)


def test_fewer_blocks_at_a_time_while_the_pool_is_low():
    pace = Pace(ManualClock())
    for free, at_once in ((8, 6), (7, 3), (5, 3), (4, 1), (1, 1)):
        assert [pace.may_begin(free, busy, 6) for busy in range(8)] == [busy < at_once for busy in range(8)]
    assert pace.may_begin(7, 0, 1)


def test_blocks_that_fail_at_once_cannot_drain_the_pool():
    assert pads_spent(8, 10.0) <= 5
    assert pads_spent(8, 300.0) <= 7
    assert pads_spent(16, 60.0) <= 10
    assert pads_spent(16, 3600.0) <= 16


def test_a_crash_or_two_are_followed_at_once():
    clock = ManualClock(100.0)
    pace = Pace(clock)
    for _ in range(3):
        pace.failed()
        clock.advance(0.5)
        assert pace.may_begin(2, 0, 2)


def test_a_key_ends_the_pause():
    pace = Pace(ManualClock())
    for _ in range(10):
        pace.failed()
    assert not pace.may_begin(16, 0, 2)
    pace.succeeded()
    assert pace.may_begin(16, 0, 2)


def test_a_low_pool_is_refilled_first_and_a_full_one_by_a_third_at_most():
    for length in range(PAD_SET_BITS + 512, 60_000, 777):
        for free in range(3, 30):
            refills = Pace.refills(free, length, 512)
            assert 1 <= refills <= REFILLS_MAX
            assert refills * PAD_SET_BITS + 512 <= length
            if free >= 8 and length >= 3 * PAD_SET_BITS:
                assert refills * PAD_SET_BITS <= length // 3
    assert Pace.refills(3, 60_000, 512) == REFILLS_MAX
    assert Pace.refills(3, 6_483, 512) == 3
    assert Pace.refills(20, 60_000, 512) == 1


def test_at_the_floor_authentication_comes_before_any_key():
    length = 2 * PAD_SET_BITS + 100  # two pad sets, or one and a key for each site
    assert [Pace.refills(free, length, 512) for free in (3, 2, 1, 0)] == [1, 2, 2, 2]
    assert refills_fit(9, length, Pace.refills(2, length, 512))


@given(st.integers(0, 40), st.integers(PAD_SET_BITS, 10**7), st.integers(8, 1024).map(lambda n: 8 * n))
def test_refills_never_exceed_what_a_block_holds(free, length, keys_bits):
    refills = Pace.refills(free, length, keys_bits)
    assert 1 <= refills <= REFILLS_MAX
    assert refills_fit(9, length, refills)


@given(st.integers(0, 39), st.integers(PAD_SET_BITS, 10**7))
def test_fewer_pads_never_mean_fewer_refills_or_more_blocks(free, length):
    assert Pace.refills(free, length, 512) >= Pace.refills(free + 1, length, 512)
    pace = Pace(ManualClock())
    for busy in range(8):
        assert not pace.may_begin(free, busy, 6) or pace.may_begin(free + 1, busy, 6)
