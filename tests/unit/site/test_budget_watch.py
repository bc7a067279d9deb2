"""An operator reads of scarce authentication key once for each crossing; the status says how long it lasts."""

from __future__ import annotations

from structlog.testing import capture_logs

from heliograph.authentication.anchors.psk import BOOTSTRAP_BLOCKS
from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.cli.site import _budget_lines
from heliograph.site.budget_watch import BudgetWatch
from heliograph.status import Budget, PadFlow
from heliograph.testing.clock import ManualClock
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair


def begin(records, block):
    records.burn(PadAddress(1, block, PadRole.PROPOSAL))


def watched(tmp_path):
    pair = Pair(quick_registration(), quick_channel(), tmp_path / "pair")
    clock = ManualClock()
    return pair, clock, BudgetWatch(pair.tx.records, clock)


def looks(watch, clock, times=1):
    """Look as often as an engine does, which is far more often than once a second."""
    with capture_logs() as lines:
        for _ in range(times):
            watch.look()
            clock.advance(0.3)
    return [(line["log_level"], line["level"], line["pad_sets"]) for line in lines]


def test_a_crossing_is_one_line_and_not_one_for_each_block(tmp_path):
    pair, clock, watch = watched(tmp_path)
    heard = []
    for block in range(1, BOOTSTRAP_BLOCKS + 1):
        heard += looks(watch, clock, 20)
        begin(pair.tx.records, block)
    heard += looks(watch, clock, 20)
    assert heard == [("warning", "alarm", 4), ("warning", "floor", 2), ("warning", "empty", 0)]


def test_the_end_of_an_alarm_is_told_once(tmp_path):
    pair, clock, watch = watched(tmp_path)
    for block in range(1, 5):
        begin(pair.tx.records, block)
    pair.tx.records.discard(4)
    assert looks(watch, clock, 10) == [("warning", "alarm", 4)]
    with pair.tx.database.transaction() as cursor:
        for block in range(20, 24):
            pair.tx.records.insert_pad_set(cursor, 1, block, bytes(224))
    assert looks(watch, clock, 10) == [("warning", "normal", 8)]


def test_a_site_that_has_no_epoch_yet_is_not_alarmed(tmp_path):
    pair, clock, watch = watched(tmp_path)
    with pair.tx.database.transaction() as cursor:
        cursor.execute("DELETE FROM link_pads")
        cursor.execute("UPDATE link_ledger SET bits_in = 0")
    assert looks(watch, clock, 5) == []


def test_the_status_tells_where_the_bits_are_and_how_long_they_last(tmp_path):
    pair, clock, watch = watched(tmp_path)
    watch.look()
    before = watch.status()
    assert (before.level, before.seconds_left, before.used_bps) == ("normal", None, 0.0)
    for block in (1, 2):
        begin(pair.tx.records, block)
        pair.tx.records.discard(block)
    clock.advance(100.0)
    watch.look()
    status = watch.status()
    assert status.level == "throttle"
    assert status.used_bps == 2 * 1792 / 100
    assert status.refilled_bps == 0
    assert status.seconds_left == status.seconds_left_without_refill == 300.0  # six sets, one in fifty seconds
    assert status.to_receiver == PadFlow(8 * 1024, 0, 2 * 256, 2 * 768, 6 * 1024, 0)


def test_old_samples_leave_the_window(tmp_path):
    _, clock, watch = watched(tmp_path)
    for _ in range(1000):
        watch.look()
        clock.advance(1.0)
    assert len(watch._history) <= 302


def test_the_status_command_shows_the_budget():
    flow = PadFlow(8192, 1024, 2048, 0, 7168, 1024)

    class Link:
        pad_sets = 6
        budget = Budget("throttle", flow, flow, 35.84, 0.0, 300.0, 250.0)

    first, down, up = _budget_lines(Link)
    assert first == (
        "authentication key: throttle, pads for 6 more blocks, empty in 300 s at the rate of the last minutes; "
        "250 s if refill stops now"
    )
    assert "7168 bits left, 1024 of them reserved" in down
    assert "bootstrap 8192, refilled 1024, spent 2048, lost 0" in up
    for left, without, text in ((None, 250.0, "not shrinking; 250 s if"), (None, None, "nothing used lately")):
        Link.budget = Budget("normal", flow, flow, 1.0, 1.0, left, without)
        assert text in _budget_lines(Link)[0]
