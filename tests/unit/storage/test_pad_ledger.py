"""The ledger by direction: every bit that came in is spent, lost or left, on both sites, whatever happens to blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliograph.authentication.anchors.psk import BOOTSTRAP_BLOCKS
from heliograph.authentication.budget import Level
from heliograph.authentication.pads import PadAddress, PadDirection, PadRole, pad_set_bits
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

DOWN, UP = (pad_set_bits(way) for way in PadDirection)


@pytest.fixture
def pair(tmp_path):
    return Pair(quick_registration(), quick_channel(), tmp_path / "pair", prefilter=False)


def budgets(pair):
    return [side.records.budget() for side in pair.sides]


def left(side, direction):
    """Count the pads one by one, by trying to take each out of the table."""
    with side.database.reading() as cursor:
        rows = cursor.execute("SELECT role FROM link_pads WHERE sealed IS NOT NULL").fetchall()
    return 256 * sum(PadRole(role).direction is direction for (role,) in rows)


def test_an_epoch_begins_with_the_slots_pads(pair):
    for budget in budgets(pair):
        assert budget.pad_sets == BOOTSTRAP_BLOCKS
        assert budget.level is Level.NORMAL
        assert (budget.to_receiver.bits_in, budget.to_transmitter.bits_in) == (8 * DOWN, 8 * UP)
        for way in (budget.to_receiver, budget.to_transmitter):
            assert (way.refilled, way.spent, way.lost, way.reserved, way.free) == (0, 0, 0, 0, way.bits_in)


def test_a_block_spends_four_pads_down_and_three_up_on_both_sites(pair):
    pair.run_block(refills=2)
    for budget in budgets(pair):
        assert budget.pad_sets == BOOTSTRAP_BLOCKS - 1 + 2
        for way, size in ((budget.to_receiver, DOWN), (budget.to_transmitter, UP)):
            assert (way.spent, way.refilled, way.lost, way.reserved) == (size, 2 * size, 0, 0)
            assert way.left == way.free == 9 * size


def test_the_pads_of_a_block_under_way_are_reserved(pair):
    pair.wire = lambda _, f: () if len(f) > 4000 else (f,)  # the closure never arrives
    pair.run_block()
    at_tx, at_rx = budgets(pair)
    assert (at_tx.pad_sets, at_rx.pad_sets) == (7, 7)
    assert (at_tx.to_receiver.spent, at_tx.to_receiver.reserved) == (256, DOWN - 256)  # the proposal's
    assert (at_tx.to_transmitter.spent, at_tx.to_transmitter.reserved) == (0, UP)
    assert (at_rx.to_transmitter.spent, at_rx.to_transmitter.reserved) == (256, UP - 256)  # the closure's


def test_the_pads_of_a_discarded_block_are_lost_and_counted_as_such(pair):
    pair.wire = lambda _, f: () if len(f) > 4000 else (f,)
    pair.run_block()
    pair.time_out()
    pair.wire = lambda _, f: (f,)
    pair.run_block(refills=4)
    for side, budget in zip(pair.sides, budgets(pair), strict=True):
        assert budget.to_receiver.lost > 0
        assert budget.to_transmitter.lost > 0
        for direction, way in zip(PadDirection, (budget.to_receiver, budget.to_transmitter), strict=True):
            assert way.left == left(side, direction)
            assert way.bits_in + way.refilled == way.spent + way.lost + way.left
            assert way.free == budget.pad_sets * pad_set_bits(direction)
            assert way.reserved == 0


def test_the_sums_are_those_of_the_directions(pair):
    pair.run_block()
    for side, budget in zip(pair.sides, budgets(pair), strict=True):
        totals, ways = side.records.totals(), (budget.to_receiver, budget.to_transmitter)
        assert totals.bits_spent == sum(way.spent for way in ways) == 7 * 256
        assert totals.bits_refilled == sum(way.refilled for way in ways) == DOWN + UP


def test_the_ledger_survives_a_restart(pair):
    pair.run_block()
    before = budgets(pair)
    for side in pair.sides:
        side.restart()
    assert budgets(pair) == before


def test_what_an_operator_destroys_is_lost_not_forgotten(pair):
    pair.run_block()
    records = pair.tx.records
    records.destroy_pads()
    budget = records.budget()
    assert budget.level is Level.EMPTY
    for way, size in ((budget.to_receiver, DOWN), (budget.to_transmitter, UP)):
        assert (way.left, way.lost, way.spent) == (0, 8 * size, size)


def test_a_pad_that_ran_out_of_attempts_is_lost_not_spent(pair):
    records, address = pair.tx.records, PadAddress(1, 1, PadRole.CLOSURE)
    for _ in range(1024):
        records.attempt(address)
    way = records.budget().to_transmitter
    assert (way.spent, way.lost) == (0, 256)


def test_at_the_floor_a_block_may_give_all_its_bits_to_authentication(tmp_path):
    """No key on either side, and both cut alike: the count travels in the tagged decision."""
    registration = quick_registration()
    length = registration.parameters[0].secret_key_length
    registration = replace(registration, key_size_bits=2048)
    assert 4 * (DOWN + UP) <= length < 4 * (DOWN + UP) + 2048
    pair = Pair(registration, quick_channel(), tmp_path / "pair")
    pair.run_block(refills=4)
    assert pair.tx.finished() == pair.rx.finished() == [1]
    for side in pair.sides:
        assert side.records.available(0) == list(range(2, 13))
        assert side.records.budget().to_receiver.refilled == 4 * DOWN
        with side.database.reading() as cursor:
            assert cursor.execute("SELECT count(*) FROM key_records").fetchone() == (0,)
    pair.run_block(refills=1)  # and the link goes on: keys again
    assert pair.tx.finished() == pair.rx.finished() == [1, 2]
    names = []
    for side in pair.sides:
        with side.database.reading() as cursor:
            names.append(set(cursor.execute("SELECT key_id FROM key_records").fetchall()))
    assert names[0] == names[1] != set()
