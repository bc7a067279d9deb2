"""Each step of the commit protocol is one transaction, and only in its order."""

from __future__ import annotations

import pytest

from heliograph.errors import LocalProtocolError, StoreUnavailable
from heliograph.protocol import actions as a
from heliograph.protocol import records as r
from heliograph.protocol.frames import parse_frame
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

STEPS = {
    "tx": [r.DecidedCommit, r.PeerAcknowledged],
    "rx": [r.CommittedLocal, r.ObeyedCommit, r.PeerSettled],
}
STAGES = {
    r.DecidedCommit: "decided",
    r.PeerAcknowledged: "ended",
    r.CommittedLocal: "local",
    r.ObeyedCommit: "obeyed",
    r.PeerSettled: "ended",
}


def make(directory):
    return Pair(quick_registration(), quick_channel(), directory)


def records_of(pair):
    return {side.name: [x.action.record for x in side.done if isinstance(x.action, a.Persist)] for side in pair.sides}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Return the real records of an honest block, in order."""
    pair = make(tmp_path_factory.mktemp("stored") / "pair")
    pair.run_block()
    found = records_of(pair)
    assert {name: [type(x) for x in records] for name, records in found.items()} == STEPS
    return found


def state(side):
    with side.database.reading() as cursor:
        return [cursor.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]


TABLES = ("link_blocks", "link_pads", "link_state", "link_ledger", "key_records", "key_segments", "key_tombstones")


@pytest.mark.parametrize("name", ["tx", "rx"])
def test_a_step_out_of_order_changes_nothing(tmp_path, stored, name):
    pair = make(tmp_path / "pair")
    side = getattr(pair, name)
    for done, record in enumerate(stored[name]):
        for other in stored[name][done + 1 :]:
            before = state(side)
            with pytest.raises((LocalProtocolError, TypeError)):
                side.commits.persist(other)
            assert state(side) == before
        side.commits.persist(record)
        for again in stored[name][: done + 1]:
            before = state(side)
            with pytest.raises(Exception, match=r"not in stage|UNIQUE|damaged|SQLITE"):
                side.commits.persist(again)
            assert state(side) == before


@pytest.mark.parametrize("name", ["tx", "rx"])
def test_the_store_tells_a_restarted_site_where_each_block_stands(tmp_path, stored, name):
    pair = make(tmp_path / "pair")
    side = getattr(pair, name)
    for record in stored[name]:
        side.commits.persist(record)
        side.restart()
        found = side.commits.in_doubt()
        if isinstance(record, r.PeerSettled):
            assert found == []  # the participant has no last word: nobody waits for one
            continue
        (one,) = found
        assert (one.block, one.stage) == (1, STAGES[type(record)])
        assert parse_frame(one.wire).tagged
        assert one.length == quick_registration().parameters[0].secret_key_length
        assert one.refills == (2 if name == "tx" else 0)  # what a decider needs to read the acknowledgement


def test_a_secret_leaves_the_table_when_it_is_cut(tmp_path, stored):
    pair = make(tmp_path / "pair")
    for name, held in (("tx", [True, False]), ("rx", [True, False, False])):
        side = getattr(pair, name)
        for record, still in zip(stored[name], held, strict=True):
            side.commits.persist(record)
            with side.database.reading() as cursor:
                sealed, key_ids = cursor.execute("SELECT sealed_secret, key_ids FROM link_blocks").fetchone()
            assert (sealed is not None) == still
            if not still:
                assert key_ids == "[]"


def test_no_secret_is_stored_as_it_is(tmp_path, stored):
    pair = make(tmp_path / "pair")
    for name in ("tx", "rx"):
        side = getattr(pair, name)
        secret = stored[name][0].secret.to_bytes()
        windows = {secret[i : i + 16] for i in range(len(secret) - 16)}
        for record in stored[name]:
            side.commits.persist(record)
            for rows in state(side):
                for value in (v for row in rows for v in row if isinstance(v, bytes)):
                    assert not windows & {value[i : i + 16] for i in range(len(value) - 15)}


def test_a_committed_block_is_counted_once_with_its_epsilon(tmp_path, stored):
    pair = make(tmp_path / "pair")
    for name in ("tx", "rx"):
        side = getattr(pair, name)
        for record in stored[name]:
            side.commits.persist(record)
        assert side.records.marks().committed == 1
        assert side.records.totals().eps_total == pytest.approx(2e-15)
        assert [(e, b) for e, b, _ in side.commits.committed_blocks()] == [(1, 1)]


def test_promised_pads_are_not_promised_again(tmp_path, stored):
    """From the stored decision on, the blocks its refill serves are taken, though their pads are not there yet."""
    pair = make(tmp_path / "pair")
    assert pair.tx.commits.assigned() == 8
    pair.tx.commits.persist(stored["tx"][0])
    pair.tx.restart()
    assert pair.tx.commits.assigned() == 10
    assert pair.tx.records.assigned() == 8
    pair.tx.commits.persist(stored["tx"][1])
    assert pair.tx.records.assigned() == pair.tx.commits.assigned() == 10


@pytest.mark.parametrize("name", ["tx", "rx"])
def test_no_step_that_tells_the_peer_of_keys_ends_before_they_are_handed_over(tmp_path, stored, name):
    """The message of a step is sent when ``persist`` has returned: it must not, while the delivery server is away."""
    pair = make(tmp_path / "pair")
    side = getattr(pair, name)

    def away():
        raise StoreUnavailable("the delivery server is away")

    for record in stored[name]:
        side.commits._hand_over = away
        if isinstance(record, r.ObeyedCommit | r.PeerAcknowledged | r.PeerSettled):
            with pytest.raises(StoreUnavailable, match="away"):
                side.commits.persist(record)
        else:
            side.commits.persist(record)
        with side.database.reading() as cursor:  # the step itself is durable: nothing is lost, all is repeated later
            assert cursor.execute("SELECT stage FROM link_blocks").fetchone() == (STAGES[type(record)],)


def test_keys_are_as_old_as_their_block_at_both_sites_however_long_the_last_word_took(tmp_path, stored):
    """After an outage key_ttl_s must not end a key at its holder that its owner still hands out, or the reverse."""
    pair, ages = make(tmp_path / "pair"), {}
    for name, side in (("rx", pair.rx), ("tx", pair.tx)):
        first, *later = stored[name]
        side.commits._now = lambda: 1000.0
        side.commits.persist(first)
        side.commits._now = lambda: 1000.0 + 86_400.0  # a day without the peer
        for record in later:
            side.commits.persist(record)
        with side.database.reading() as cursor:
            found = cursor.execute("SELECT key_id, created_at FROM key_records ORDER BY key_id").fetchall()
        ages[name] = dict(found)
    assert ages["rx"] == ages["tx"]
    assert set(ages["tx"].values()) == {1000.0}
    for side in pair.sides:  # nor does the stamp leave with the keys, or with what both sites report alike
        assert "stored_at" not in str(side.commits.committed_blocks())
        with side.database.reading() as cursor:
            assert "stored_at" not in str(cursor.execute("SELECT metadata FROM key_segments").fetchall())


def test_a_clock_that_was_set_back_makes_no_key_of_the_future(tmp_path, stored):
    pair = make(tmp_path / "pair")
    first, *later = stored["tx"]
    pair.tx.commits._now = lambda: 5000.0
    pair.tx.commits.persist(first)
    pair.tx.commits._now = lambda: 1000.0
    for record in later:
        pair.tx.commits.persist(record)
    with pair.tx.database.reading() as cursor:
        assert {at for (at,) in cursor.execute("SELECT created_at FROM key_records")} == {1000.0}
