"""What two sets of marks mean: a table of all cases, and both sites always come to the same place (security.md 4)."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.authentication.anchors.psk import OPERATOR_SLOTS, SLOTS
from heliograph.errors import HeliographError, PadsExhausted, RemoteProtocolError, RollbackDetected
from heliograph.protocol.records import Marks
from heliograph.protocol.resynchronisation import SKIP_MAX, Resumption, resynchronise
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

AUTOMATIC = SLOTS - OPERATOR_SLOTS
LAST_BUT_ONE = AUTOMATIC + 1


def marks(epoch=1, touched=0, proved=0, committed=0, pads=8):
    return Marks(epoch, touched, proved, committed, pads)


EMPTY, MADE_KEYS = marks(AUTOMATIC - 1, 8, pads=0), marks(AUTOMATIC, 8, 8, 3)
# (own, peer, operator's epoch) -> (epoch, floor, opens) or the refusal.
TABLE = {
    "the first meeting": (marks(0, pads=0), marks(0, pads=0), 0, (1, 0, True)),
    "the peer has opened already, its reply was lost": (marks(0, pads=0), marks(1), 0, (1, 0, True)),
    "this site has opened already": (marks(1), marks(0, pads=0), 0, (1, 0, False)),
    "opened and tried, the peer not": (marks(1, 3, 0), marks(0, pads=0), 0, (1, 3, False)),
    "both at the same place": (marks(1, 5, 5, 4), marks(1, 5, 5, 4), 0, (1, 5, False)),
    "the peer is ahead by a block": (marks(1, 5, 5, 4), marks(1, 6, 5, 4), 0, (1, 6, False)),
    "the peer has proof of all this site sent": (marks(1, 6, 5, 4), marks(1, 5, 6, 4), 0, (1, 6, False)),
    "the peer is ahead by the most": (marks(1, 5), marks(1, 5 + SKIP_MAX), 0, (1, 5 + SKIP_MAX, False)),
    "the peer is ahead by more": (marks(1, 5), marks(1, 6 + SKIP_MAX), 0, RemoteProtocolError),
    "the peer proves what this site forgot": (marks(1, 5), marks(1, 5, 6), 0, RollbackDetected),
    "the peer proves it, by far": (marks(1, 0), marks(1, 9, 9, 9), 0, RollbackDetected),
    "no pads here, no key made yet": (marks(1, 8, pads=0), marks(1, 8, pads=0), 0, (2, 0, True)),
    "no pads there, no key made yet": (marks(1, 8, pads=2), marks(1, 8, pads=0), 0, (2, 0, True)),
    "no pads, keys were made here": (marks(1, 8, 8, 3, 0), marks(1, 8, 8, 3, 0), 0, PadsExhausted),
    "no pads, keys were made there": (marks(1, 8, 8, 0, 0), marks(1, 8, 8, 3, 0), 0, PadsExhausted),
    "an operator asked for the next epoch": (marks(1, 8, 8, 3), marks(1, 8, 8, 3), 2, (2, 0, True)),
    "an operator asked, the peer's did and opened": (marks(1, 8, 8, 3), marks(2), 2, (2, 0, True)),
    "the peer's operator opened, ours did not": (marks(1, 8, 8, 3), marks(2), 0, PadsExhausted),
    "the peer's operator opened, no key made here": (marks(1, 8), marks(2), 0, (2, 0, True)),
    "the peer lost the epoch in which keys were made": (marks(2, 8, 8, 3), marks(1), 0, PadsExhausted),
    "the peer lost it, an operator asks for the next": (marks(2, 8, 8, 3), marks(1), 3, (3, 0, True)),
    "the peer has not opened yet what the operator asked": (marks(2), marks(1, 9, 9, 9), 2, (2, 0, False)),
    "the last automatic slot": (EMPTY, EMPTY, 0, (AUTOMATIC, 0, True)),
    "the operator's slots are not automatic": (marks(AUTOMATIC, pads=0), marks(AUTOMATIC, pads=0), 0, PadsExhausted),
    "the operator opens one of them": (MADE_KEYS, marks(AUTOMATIC), LAST_BUT_ONE, (LAST_BUT_ONE, 0, True)),
    "the book is used up": (marks(SLOTS, 8, 8, 3), marks(SLOTS, 8, 8, 3), SLOTS + 1, PadsExhausted),
    "the peer claims an epoch beyond the book": (marks(1), marks(SLOTS + 1), 0, PadsExhausted),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_table(case):
    own, peer, operator_epoch, expected = TABLE[case]
    if isinstance(expected, tuple):
        assert resynchronise(own, peer, operator_epoch) == Resumption(expected[0], expected[1], opens=expected[2])
        return
    with pytest.raises(expected) as caught:
        resynchronise(own, peer, operator_epoch)
    assert "\n" not in str(caught.value)


def test_a_refusal_names_the_remedy():
    for case, (own, peer, operator_epoch, expected) in TABLE.items():
        if expected in (PadsExhausted, RollbackDetected):
            with pytest.raises(expected) as caught:
                resynchronise(own, peer, operator_epoch)
            assert any(word in str(caught.value) for word in ("rebootstrap", "make a new one")), case


small = st.integers(0, 12)
MARKS = st.builds(Marks, st.integers(0, SLOTS + 2), small, small, small, small)


def outcome(own, peer, operator_epoch):
    try:
        return resynchronise(own, peer, operator_epoch)
    except HeliographError as why:
        return type(why)


@settings(max_examples=500, deadline=None)
@given(MARKS, MARKS, st.integers(0, SLOTS))
def test_both_sides_come_to_the_same_epoch_and_floor(a, b, operator_epoch):
    """Operators act on both sites or on neither; whenever both go on, they go on from the same place."""
    at_a, at_b = outcome(a, b, operator_epoch), outcome(b, a, operator_epoch)
    if isinstance(at_a, Resumption) and isinstance(at_b, Resumption):
        assert at_a.epoch == at_b.epoch
        # A site that opens an epoch starts at 0; the other may have tried blocks in it that this one never saw.
        if at_a.opens == at_b.opens:
            assert at_a.floor == at_b.floor


@settings(max_examples=500, deadline=None)
@given(MARKS, MARKS, st.integers(0, SLOTS))
def test_marks_never_lead_back(own, peer, operator_epoch):
    """No marks, true or forged, make a site use a block or an epoch again."""
    found = outcome(own, peer, operator_epoch)
    if isinstance(found, Resumption):
        assert found.epoch >= max(own.epoch, 1)
        if found.opens:
            assert found.epoch > own.epoch
        else:
            assert found.epoch == own.epoch
            assert found.floor >= max(own.touched, own.proved)
        if own.committed:
            assert found.epoch <= max(own.epoch, operator_epoch)


# The same over real stores.
def make(directory):
    return Pair(quick_registration(), quick_channel(), directory)


def snapshot(side):
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    side.database._connection.backup(copy)
    return copy


def restore(side, copy):
    copy.backup(side.database._connection)


@pytest.mark.parametrize("name", ["tx", "rx"])
def test_an_old_store_is_noticed_by_its_anchor(tmp_path, name):
    pair = make(tmp_path / "pair")
    side = getattr(pair, name)
    old = snapshot(side)
    pair.run_block()
    restore(side, old)
    with pytest.raises(RollbackDetected, match="its anchor is at"):
        side.restart()
    assert side.records.marks().pads == 0


@pytest.mark.parametrize("name", ["tx", "rx"])
def test_an_old_store_with_an_old_anchor_is_proved_by_the_peer(tmp_path, name):
    """Both were restored from one backup: this site cannot know, the peer's authenticated mark proves it."""
    pair = make(tmp_path / "pair")
    side = getattr(pair, name)
    pair.run_block()
    old, anchor = snapshot(side), side.anchor.mark
    pair.run_block()
    restore(side, old)
    side.anchor.mark = anchor
    pair.crash(side)
    with pytest.raises(RollbackDetected, match=r"the peer proves block 9|has met a later instance"):
        pair.connect()


def test_a_rollback_of_both_sites_at_once_is_not_detected(tmp_path):
    """What security.md 4 states as not promised; if this fails, the statement can be strengthened."""
    pair = make(tmp_path / "pair")
    pair.run_block()
    old = [(side, snapshot(side), side.anchor.mark) for side in pair.sides]
    pair.run_block()
    for side, copy, anchor in old:
        restore(side, copy)
        side.anchor.mark = anchor
        pair.crash(side)
    pair.connect()
    assert pair.run_block() == 9


def test_blocks_that_one_side_lost_are_skipped_by_both(tmp_path):
    pair = make(tmp_path / "pair")
    pair.wire = lambda *_: ()
    pair.begin_block()
    pair.wire = lambda _, f: (f,)
    pair.connect()
    assert pair.tx.running.floor == pair.rx.running.floor == 1
    assert pair.run_block() == 2


def test_a_bootstrap_that_makes_no_key_goes_on_with_the_next_slot(tmp_path):
    pair = make(tmp_path / "pair")
    pair.wire = lambda _, f: (f,) if len(f) < 4000 else ()
    for _ in range(8):
        pair.run_block()
        pair.time_out()
    pair.wire = lambda _, f: (f,)
    pair.connect()
    assert pair.tx.running.epoch == pair.rx.running.epoch == 2
    pair.run_block()
    assert pair.tx.finished() == pair.rx.finished() == [1]


def test_once_keys_were_made_an_empty_pool_waits_for_an_operator(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    pair.wire = lambda _, f: (f,) if len(f) < 4000 else ()
    for _ in range(2):
        pair.run_block()
        pair.time_out()
    pair.wire = lambda _, f: (f,)
    with pytest.raises(PadsExhausted, match="rebootstrap"):
        pair.connect()
    for side in pair.sides:
        assert side.records.request_rebootstrap() == 2
        side.restart()
    pair.connect()
    assert pair.tx.running.epoch == 2
    pair.run_block()
    assert pair.tx.finished() == pair.rx.finished() == [1, 1]


def test_a_doubt_is_ended_by_operators_in_a_new_epoch_and_its_secret_destroyed(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    pair.wire = lambda _, f: () if b"\xa8Decision" in f else (f,)  # it never arrives
    pair.run_block()
    assert pair.rx.running.doubtful_blocks() == (9,)
    for side in pair.sides:
        side.records.request_rebootstrap()
        side.restart()
    pair.wire = lambda _, f: (f,)
    pair.connect()
    for side in pair.sides:
        assert side.running.epoch == 2
        assert side.running.doubtful_blocks() == ()
        with side.database.reading() as cursor:
            found = cursor.execute("SELECT count(*) FROM link_blocks WHERE sealed_secret IS NOT NULL").fetchone()
        assert found == (0,)
    pair.run_block()
    assert pair.rx.finished() == [1, 1]
