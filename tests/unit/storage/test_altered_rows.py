"""Rows that somebody, or the disk, altered: what can be read is served, what cannot is set aside, never promised."""

import pytest
from delivery_stores import PostgresStore, SqliteStore, held, new, owned, pairs

from heliograph.errors import InsufficientKeys, KeyNotFound, StoreUnavailable
from heliograph.storage.group_commit import run_group
from heliograph.storage.key_counts import KeyCounts


@pytest.fixture
def store(tmp_path):
    made = SqliteStore(tmp_path)
    yield made
    made.close()


def take(store, number=1):
    return lambda: store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)


def fetch(store, rows):
    return lambda: store.keys.deliver_to_slave("sae-a", "sae-b", [row.key_id for row in rows], 200.0)


def alter(store, change):
    with store.database.transaction() as cursor:
        cursor.execute(f"UPDATE {change}")


ALTERED = [
    "key_chunks SET first = -1",
    "key_chunks SET first = 'x'",
    "key_chunks SET created_at = 'x'",
    "key_chunks SET epoch = -1",
    "key_chunks SET positions = 'abc'",
    "key_chunks SET key_ids = x'00'",
    "key_chunks SET key_ids = zeroblob(40)",
    "key_chunks SET fates = x''",
    "key_chunks SET fates = 'abc'",
    "key_chunks SET fates = x'00'",
    "key_chunks SET fates = zeroblob(99)",
    "key_segments SET block = -5",
    "key_segments SET block = 'x'",
    "key_ciphertexts SET ciphertexts = zeroblob(3)",
    "key_ciphertexts SET ciphertexts = 7",
    "key_chunks SET key_ids = x'', fates = x''",
    "key_chunks SET key_ids = 'abc'",
    "key_chunks SET segment = NULL",
    "key_chunks SET key_ids = CAST(x'ffff' AS TEXT)",
    "key_chunks SET fates = CAST(x'ff' AS TEXT)",
    "key_segments SET sealed_key = CAST(x'ffff' AS TEXT)",
]


@pytest.mark.parametrize("change", ALTERED)
def test_whatever_stands_in_an_altered_row_the_next_blocks_keys_are_served_and_no_count_is_negative(store, change):
    store.add(1, owned(3))
    rows = store.add(2, owned(30))
    alter(store, f"{change} WHERE rowid = 1")
    with pytest.raises(StoreUnavailable, match="altered"):
        take(store)()
    assert take(store)()[0].material == rows[0].material
    counts = store.keys.counts("sae-a", "sae-b")
    assert counts.deliverable == 29
    assert counts.damaged <= 3
    with pytest.raises(InsufficientKeys, match="29 stored"):
        take(store, 30)()
    assert len(take(store, 29)()) == 29
    store.keys.expire(1e12, 2.0)
    counts = store.keys.counts("sae-a", "sae-b")
    assert counts.deliverable >= 0
    assert counts.damaged == 0


@pytest.mark.parametrize(
    "change",
    [
        "key_chunks SET created_at = 'x'",
        "key_chunks SET created_at = x'00'",
        "key_segments SET metadata = CAST(x'ff00' AS TEXT)",
        "key_audiences SET slave = CAST(x'ff00' AS TEXT)",
    ],
)
def test_an_altered_row_lets_no_key_outlive_its_time_and_goes_with_the_others(store, change):
    store.add(1, owned(3))
    store.add(2, [new("sae-a", "sae-c", 100.0, here=True) for _ in range(2)])
    alter(store, f"{change} WHERE rowid = 1")
    assert store.keys.expire(1e6, 2e6, 10.0) == 5
    with store.database.reading() as cursor:
        assert cursor.execute("SELECT count(*) FROM key_segments").fetchone() == (0,)
        assert cursor.execute("SELECT count(*) FROM key_ciphertexts").fetchone() == (0,)


def test_what_cannot_be_read_is_told_without_its_bytes(store):
    with (
        pytest.raises(StoreUnavailable, match="Could not decode to UTF-8 column") as told,
        store.database.reading() as c,
    ):
        c.execute("SELECT CAST(x'5345435245543aff' AS TEXT)").fetchall()
    assert "SECRET" not in str(told.value)


def test_a_slave_that_names_a_key_whose_row_lost_its_names_sets_the_row_aside(store):
    lost, rows = store.add(1, held(3)), store.add(2, held(2))
    alter(store, "key_chunks SET key_ids = x'00' WHERE chunk = 1")
    with pytest.raises(StoreUnavailable, match="altered in the store; it is set aside, with 2 more"):
        fetch(store, lost[1:2])()
    assert store.keys.counts("sae-b", "sae-a") == KeyCounts(held=2, damaged=3)
    with pytest.raises(KeyNotFound):
        fetch(store, lost[1:2])()
    assert pairs(fetch(store, rows)()) == pairs(rows)


def test_keys_that_a_wrong_number_hides_are_counted_anew_and_delivered(store):
    rows = store.add(1, owned(3))
    alter(store, "key_chunks SET waiting = 0")
    with pytest.raises(StoreUnavailable, match="counted 3 keys of 256 bits for this pair and has 0"):
        take(store, 3)()
    assert pairs(take(store, 3)()) == pairs(rows)


def test_a_pool_that_counts_more_than_it_has_says_so_once_and_then_the_truth(store):
    rows = store.add(1, owned(3))
    alter(store, "key_audiences SET deliverable = 40")
    outcomes = run_group(store.database, [take(store, 4), take(store, 2)])
    assert "counted 40 keys of 256 bits for this pair and has 3" in str(outcomes[0])
    assert pairs(outcomes[1]) == pairs(rows[:2])
    assert store.keys.stored_key_count("sae-a", "sae-b") == 1
    with pytest.raises(InsufficientKeys, match="1 stored"):
        take(store, 4)()


def test_a_position_that_no_key_has_is_set_aside_in_a_server_too(tmp_path, postgres):
    served = PostgresStore(tmp_path, postgres)
    rows = served.add(1, owned(3))
    with served.link.transaction() as cursor:
        cursor.execute("UPDATE key_records SET position = -7 WHERE key_id = %s", (rows[0].key_id,))
    with pytest.raises(StoreUnavailable, match=f"key {rows[0].key_id} was altered"):
        take(served)()
    assert pairs(take(served, 2)()) == pairs(rows[1:])
    assert served.keys.damaged_count() == 1
    served.close()


@pytest.mark.parametrize(
    "change",
    [
        "key_chunks SET key_ids = x'00'",
        "key_chunks SET key_ids = zeroblob(40)",
        "key_chunks SET key_ids = key_ids || key_ids",
        "key_ciphertexts SET ciphertexts = CAST(substr(ciphertexts, 1, 141) AS BLOB)",
        "key_chunks SET first = 'x'",
        "key_chunks SET first = 2147483647",
        "key_chunks SET first = 3",  # where another chunk of the block is
        "key_chunks SET positions = 'abc'",
        "key_chunks SET positions = x'ffffffffffffffffffffffff'",
        "key_chunks SET state = 'x'",
        "key_chunks SET created_at = 'x'",
        "key_segments SET metadata = CAST(x'ff00' AS TEXT)",
        "key_segments SET block = 'x'",
        "key_audiences SET slave = CAST(x'ff00' AS TEXT)",
        "key_audiences SET size = 'x'",
        "key_audiences SET owner_here = 'x'",
    ],
)
def test_a_chunk_that_was_altered_before_it_is_handed_over_arrives_set_aside_and_the_next_block_follows(
    tmp_path, postgres, change
):
    served = PostgresStore(tmp_path, postgres)
    served.stored(1, owned(3) + held(1))
    rows = served.stored(2, [new("sae-a", "sae-c", 100.0, here=True) for _ in range(2)])
    alter(served, f"{change} WHERE rowid = 1")
    served.outbox.push()
    assert pairs(served.keys.deliver_to_master("sae-a", "sae-c", 2, 200.0)) == pairs(rows)
    if "metadata" in change:  # bound to no key: they open
        assert len(take(served, 3)()) == 3
    else:
        with pytest.raises((InsufficientKeys, StoreUnavailable), match=r"insufficient|altered"):
            take(served)()
    served.close()


@pytest.mark.parametrize(
    "change",
    [
        "outbox_segments SET sealed_key = 'abc'",
        "outbox_segments SET sealed_key = CAST(x'ff' AS TEXT)",
        "outbox_segments SET block = 'x'",
        "outbox_segments SET epoch = x'00'",
    ],
)
def test_one_altered_row_keeps_no_other_blocks_key_in_the_links_file(tmp_path, postgres, change):
    served = PostgresStore(tmp_path, postgres)
    served.add(1, owned(1))
    served.add(2, owned(1))
    with served.link.transaction() as cursor:
        cursor.execute("TRUNCATE segment_keys")  # as after a crash of the server: both are offered again
    alter(served, f"{change} WHERE block = 1")
    with served.database.transaction() as cursor:
        cursor.execute("INSERT INTO outbox_acknowledged VALUES (1, 'x')")
    served.outbox.upkeep()
    served.outbox.push()
    assert len(take(served)()) == 1
    served.outbox.upkeep()
    with served.database.reading() as cursor:
        assert cursor.execute("SELECT count(*) FROM outbox_segments WHERE block = 2").fetchone() == (0,)
    served.close()


@pytest.mark.parametrize(
    "change", ["sealed_key = 'abc'", "sealed_key = CAST(x'ff' AS TEXT)", "block = 'x'", "epoch = x'00'"]
)
def test_one_altered_row_of_a_front_ends_file_keeps_no_other_blocks_keys_from_being_handed_out(
    tmp_path, postgres, change
):
    served = PostgresStore(tmp_path, postgres)
    served.add(1, owned(1))
    rows = served.add(2, [new("sae-a", "sae-c", 100.0, here=True)])
    served.fronts["fe-1"].attend()
    with served.link.transaction() as cursor:
        served.fronts["fe-1"].front_end.tidy(cursor)
        cursor.execute("TRUNCATE segment_keys")
    with served.fronts["fe-1"].database.transaction() as own:
        own.execute(f"UPDATE front_segments SET {change} WHERE block = 1")
    served.close_fronts()
    served.open("fe-1")
    with pytest.raises((StoreUnavailable, InsufficientKeys)):
        take(served)()
    assert pairs(served.keys.deliver_to_master("sae-a", "sae-c", 1, 200.0)) == pairs(rows)
    served.close()
