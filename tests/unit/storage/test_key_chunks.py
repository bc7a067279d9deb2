"""Keys in chunks: what a delivery costs, what is left of a key, and what a group's requests see of each other."""

import gc
import os
import shutil
import sqlite3
import threading
import uuid
import weakref
from collections import Counter
from contextlib import closing

import pytest

from heliograph.errors import InsufficientKeys, KeyNotFound, LocalProtocolError, StoreUnavailable
from heliograph.storage.database import Database
from heliograph.storage.group_commit import run_group
from heliograph.storage.key_counts import KeyCounts
from heliograph.storage.key_rows import key_id_bytes, key_id_text, key_id_texts
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness


def key(slave="sae-b", *, here=True, key_id=None, created_at=1.0):
    pair = ("sae-a", slave) if here else (slave, "sae-a")
    return NewKey(key_id or str(uuid.uuid4()), *pair, here, os.urandom(32), created_at)


class Store:
    def __init__(self, directory):
        FileKek.create(directory / "kek", SystemRandomness())
        self.path = directory / "store" / "s.db"
        self.database = Database(self.path, FileKek(directory / "kek", SystemRandomness()))
        self.keys = KeyRecords(self.database, SystemRandomness())
        self.blocks = 0

    def add(self, rows):
        self.blocks += 1
        with self.database.transaction() as cursor:
            self.keys.add(cursor, 1, self.blocks, rows)
            self.keys.acknowledge(cursor, 1, self.blocks)
        return rows

    def rows(self, table):
        with self.database.reading() as cursor:
            return cursor.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    def ciphertext(self, row):
        with self.database.reading() as cursor:
            return cursor.execute("SELECT ciphertext FROM key_records WHERE key_id = ?", (row.key_id,)).fetchone()[0]

    def rows_changed(self, call):
        before = self.database._connection.total_changes
        call()
        return self.database._connection.total_changes - before


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    yield store
    store.database.close()


def take(store, number=1, slave="sae-b"):
    return lambda: store.keys.deliver_to_master("sae-a", slave, number, 2.0)


def fetch(store, rows):
    return lambda: store.keys.deliver_to_slave("sae-a", "sae-b", [row.key_id for row in rows], 2.0)


def ids(keys):
    return [key.key_id for key in keys]


def test_a_delivery_of_128_keys_changes_as_few_rows_as_one_of_two(store):
    store.add([key() for _ in range(1024)])
    few = store.rows_changed(take(store, 2))
    store.keys.deliver_to_master("sae-a", "sae-b", 126, 2.0)
    assert store.rows_changed(take(store, 128)) <= few + 1  # the chunk's ciphertexts go as one row
    rows = store.add([key(here=False) for _ in range(256)])
    assert store.rows_changed(fetch(store, rows[128:256])) <= few + 1


def test_a_groups_requests_rewrite_a_chunk_once(store):
    store.add([key() for _ in range(128)])
    one = store.rows_changed(take(store))
    assert store.rows_changed(lambda: run_group(store.database, [take(store)] * 60)) == one


def test_pairs_that_took_turns_in_a_block_have_chunks_of_their_own(store):
    rows = store.add([key(("sae-b", "sae-c", "sae-d")[turn % 3]) for turn in range(300)])
    assert store.rows("key_chunks") == 3
    for slave in ("sae-d", "sae-b", "sae-c"):
        got = store.keys.deliver_to_master("sae-a", slave, 100, 2.0)
        assert [(k.key_id, k.material) for k in got] == [(r.key_id, r.material) for r in rows if r.slave_sae == slave]


def test_a_key_taken_from_the_middle_of_a_chunk_is_overwritten_and_its_neighbours_are_not(store):
    rows = store.add([key(here=False) for _ in range(6)])
    sealed = [store.ciphertext(row) for row in rows]
    store.keys.deliver_to_slave("sae-a", "sae-b", [rows[4].key_id, rows[1].key_id, rows[2].key_id], 2.0)
    store.database.checkpoint()
    disk = store.path.read_bytes()
    assert [text in disk for text in sealed] == [True, False, False, True, False, True]
    left = fetch(store, [rows[0], rows[5], rows[3]])()
    assert [k.material for k in left] == [rows[0].material, rows[5].material, rows[3].material]


def test_two_key_ids_with_the_same_beginning_are_two_keys(store):
    first = str(uuid.uuid4())
    twin = first[:-4] + ("0000" if first[-4:] != "0000" else "ffff")
    (one,) = store.add([key(here=False, key_id=first)])
    (two,) = store.add([key(here=False, key_id=twin)])
    third = first[:-4] + "1234"
    assert not store.keys.known(third)
    assert fetch(store, [two])()[0].material == two.material
    assert store.keys.known(twin)
    assert fetch(store, [one])()[0].material == one.material


@pytest.mark.parametrize("text", ["", "x", "0" * 32, "{%s}" % ("0" * 36), "0" * 35 + " ", "g" * 36, "-" * 36])
def test_what_is_no_uuid_names_no_key(store, text):
    assert key_id_bytes(text) is None
    assert not store.keys.known(text)


def test_what_one_request_of_a_group_took_the_next_does_not_find(store):
    mine, theirs = store.add([key() for _ in range(3)]), store.add([key(here=False) for _ in range(2)])
    found = run_group(
        store.database,
        [take(store, 2), take(store, 2), fetch(store, theirs), fetch(store, theirs[:1]), take(store, 1)],
    )
    assert ids(found[0] + found[4]) == ids(mine)
    assert isinstance(found[1], InsufficientKeys)
    assert ids(found[2]) == ids(theirs)
    assert isinstance(found[3], KeyNotFound)


def test_other_work_in_a_group_sees_what_was_taken_before_it(store):
    """Counts, sweeps and whole transactions come after deliveries that are in memory only."""
    store.add([key() for _ in range(10)])
    keys = store.keys
    found = run_group(
        store.database,
        [
            take(store, 3),
            lambda: keys.stored_key_count("sae-a", "sae-b"),
            take(store, 2),
            lambda: keys.trim("sae-a", "sae-b", owner_here=True, keep=1, now=2.0),
            take(store, 1),
            lambda: keys.counts("sae-a", "sae-b"),
        ],
    )
    assert (found[1], found[3], len(found[4])) == (7, 4, 1)
    assert found[5] == KeyCounts()
    assert keys.delivered_counts() == (6, 0)


def test_a_refusal_after_a_delivery_in_a_group_undoes_itself_only(store):
    rows = store.add([key() for _ in range(4)])

    def refused(_):
        raise InsufficientKeys("the quota")

    found = run_group(
        store.database,
        [
            take(store),
            lambda: store.keys.deliver_to_master("sae-a", "sae-b", 2, 2.0, accept=refused),
            take(store),
        ],
    )
    assert ids(found[0] + found[2]) == ids(rows[:2])
    assert store.keys.stored_key_count("sae-a", "sae-b") == 2


def test_a_group_whose_changes_cannot_be_written_tells_no_key_and_takes_none(store):
    rows = store.add([key() for _ in range(4)])
    with store.database.transaction() as cursor:
        cursor.execute("CREATE TRIGGER broken BEFORE UPDATE ON key_audiences BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert all(isinstance(found, StoreUnavailable) for found in run_group(store.database, [take(store)] * 2))
    # Also when other work of the group makes them be written before its end.
    count = lambda: store.keys.stored_key_count("sae-a", "sae-b")  # noqa: E731
    assert all(isinstance(found, StoreUnavailable) for found in run_group(store.database, [take(store), count]))
    with store.database.transaction() as cursor:
        cursor.execute("DROP TRIGGER broken")
    assert ids(take(store, 4)()) == ids(rows)


class NoWayBack:
    """A connection that cannot roll back to a savepoint: half a part must not be committed."""

    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, *arguments):
        if statement.startswith("ROLLBACK TO"):
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *arguments)


def test_a_part_that_cannot_be_undone_takes_the_whole_group_with_it(store):
    store.add([key() for _ in range(4)])

    def half():
        with store.database.transaction() as cursor:
            cursor.execute("UPDATE key_audiences SET deliverable = 0")
            raise InsufficientKeys("halfway")

    whole = store.database._connection
    store.database._connection = NoWayBack(whole)
    found = run_group(store.database, [take(store), half, take(store)])
    store.database._connection = whole
    assert all(isinstance(outcome, StoreUnavailable) for outcome in found)
    assert store.keys.stored_key_count("sae-a", "sae-b") == 4
    assert len(take(store, 4)()) == 4


def test_the_totals_are_what_the_chunks_hold_after_every_kind_of_change(store):
    keys = store.keys
    store.add([key(("sae-b", "sae-c")[turn % 2]) for turn in range(300)])
    held = store.add([key(here=False, created_at=1.0 + turn % 2) for turn in range(40)])
    run_group(store.database, [take(store, 7), take(store, 130), take(store, 3, "sae-c"), fetch(store, held[3:9])])
    keys.trim("sae-a", "sae-c", owner_here=True, keep=20, now=2.0)
    keys.expire(1.5, 2.0)
    with store.database.transaction() as cursor:
        keys.add(cursor, 1, 99, [key() for _ in range(3)])
        keys.discard(cursor, 1, 1, 2.0)
    with store.database.reading() as cursor:
        totals = {
            (where, state): number
            for where, *numbers in cursor.execute(
                "SELECT audience, pending, deliverable, damaged, released, delivered FROM key_audiences"
            )
            for state, number in enumerate(numbers)
            if number
        }
        found = Counter()
        for where, state, waiting, fates in cursor.execute("SELECT audience, state, waiting, fates FROM key_chunks"):
            found.update((where, fate or state) for fate in fates if fate <= 4)
            assert waiting == fates.count(0)
    assert totals == dict(found)
    assert sum(totals.values()) > 0


def test_a_pool_that_is_swept_leaves_no_ciphertext_and_no_segment_key(store):
    store.add([key() for _ in range(300)] + [key(here=False) for _ in range(300)])
    assert store.keys.expire(50.0, 60.0) == 600
    assert [store.rows(t) for t in ("key_segments", "key_ciphertexts", "key_records")] == [0, 0, 0]
    assert store.rows("key_tombstones") == 600


def test_a_power_cut_at_any_statement_of_a_group_burns_all_of_it_or_nothing(tmp_path, store):
    mine, theirs = store.add([key() for _ in range(150)]), store.add([key(here=False) for _ in range(9)])
    images = []

    def cut(_):
        image = tmp_path / f"image-{len(images)}"
        shutil.copytree(store.path.parent, image / "store")
        images.append(image)

    connection = store.database._connection
    connection.set_trace_callback(cut)
    outcomes = run_group(store.database, [take(store, 3), fetch(store, theirs[2:5]), take(store, 137), take(store, 1)])
    connection.set_trace_callback(None)
    cut("after")
    assert ids(outcomes[0] + outcomes[2] + outcomes[3]) == ids(mine[:141])
    states = []
    for image in images:
        database = Database(image / "store" / "s.db", FileKek(tmp_path / "kek", SystemRandomness()))
        keys = KeyRecords(database, SystemRandomness())
        states.append((keys.stored_key_count("sae-a", "sae-b"), keys.counts("sae-b", "sae-a").held))
        rest = keys.deliver_to_master("sae-a", "sae-b", states[-1][0], 3.0)
        assert ids(rest) == ids(mine[-len(rest) :])
        assert [k.material for k in rest] == [row.material for row in mine[-len(rest) :]]
        database.close()
        shutil.rmtree(image)
    assert len(states) > 5
    assert (states[0], states[-1]) == ((150, 9), (9, 6))
    assert set(states) == {(150, 9), (9, 6)}


@pytest.mark.parametrize("look", ["count", "write", "deliver"])
def test_a_delivery_that_looks_into_the_store_behind_its_own_back_is_refused_and_no_key_leaves_unmarked(store, look):
    rows = store.add([key() for _ in range(6)])

    def behind(_):
        if look == "count":
            store.keys.stored_key_count("sae-a", "sae-b")
        elif look == "write":
            with store.database.transaction() as cursor:
                cursor.execute("UPDATE key_audiences SET damaged = damaged")
        else:
            take(store)()

    found = run_group(
        store.database,
        [take(store), lambda: store.keys.deliver_to_master("sae-a", "sae-b", 2, 2.0, accept=behind), take(store)],
    )
    assert isinstance(found[1], LocalProtocolError)
    assert ids(found[0] + found[2]) == ids(rows[:2])
    assert ids(take(store, 4)()) == ids(rows[2:])
    assert store.keys.delivered_counts() == (6, 0)


def test_what_a_group_erased_leaves_the_log_after_the_answers_and_at_once_outside_a_group(store):
    first, second = (store.add([key() for _ in range(2)]) for _ in range(2))
    store.database.checkpoint()
    log = store.path.with_name("s.db-wal")
    with store.database.reading() as cursor:
        sealed = [row[0] for row in cursor.execute("SELECT sealed_key FROM key_segments ORDER BY block").fetchall()]
    assert ids(run_group(store.database, [take(store), take(store)])[1]) == ids(first[1:])
    assert store.database.unsettled
    assert log.stat().st_size > 0
    store.database.settle()
    assert not store.database.unsettled
    assert log.stat().st_size == 0
    assert [key in store.path.read_bytes() for key in sealed] == [False, True]
    assert ids(take(store, 2)()) == ids(second)
    assert not store.database.unsettled
    assert log.stat().st_size == 0
    assert sealed[1] not in store.path.read_bytes()


def test_an_altered_key_in_the_middle_of_a_run_is_set_aside_alone(store):
    rows = store.add([key() for _ in range(9)])
    with store.database.transaction() as cursor:
        (sealed,) = cursor.execute("SELECT ciphertexts FROM key_ciphertexts").fetchone()
        size = len(sealed) // 9
        spoilt = sealed[: 5 * size] + bytes([sealed[5 * size] ^ 1]) + sealed[5 * size + 1 :]
        cursor.execute("UPDATE key_ciphertexts SET ciphertexts = ?", (spoilt,))
    with pytest.raises(StoreUnavailable, match=rows[5].key_id):
        take(store, 9)()
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(deliverable=8, damaged=1)
    left = take(store, 8)()
    assert [(k.key_id, k.material) for k in left] == [(r.key_id, r.material) for r in (*rows[:5], *rows[6:])]


def test_many_key_ids_are_written_as_one_is():
    raw = os.urandom(16 * 129)
    one_by_one = [key_id_text(raw[at : at + 16]) for at in range(0, len(raw), 16)]
    assert key_id_texts(raw).decode() == "".join(one_by_one)
    assert key_id_texts(raw[:16]).decode() == one_by_one[0]
    assert key_id_texts(b"") == b""
    assert [key_id_bytes(text) for text in one_by_one] == [raw[at : at + 16] for at in range(0, len(raw), 16)]


class Anchor:
    """A seal whose anchor a test can stop at, or refuse."""

    def __init__(self, witness):
        self.marks, self.witness = 0, lambda _: witness()

    def mark(self, _cursor):
        self.marks += 1
        return self.marks


def test_a_delivery_beside_another_doors_group_empties_the_log_before_its_answer(store):
    alone = store.add([key("sae-s")])
    store.add([key(), key(), key()])
    sealed = store.ciphertext(alone[0])
    store.database.checkpoint()
    inside, go_on = threading.Event(), threading.Event()

    def witness():
        if threading.current_thread() is door:
            inside.set()
            assert go_on.wait(20)

    store.keys._seal = Anchor(witness)
    door = threading.Thread(target=lambda: run_group(store.database, [take(store)] * 2))
    door.start()
    try:
        assert inside.wait(20)  # its group is on the disk, its answers are not out
        take(store, slave="sae-s")()
        assert sealed not in store.path.read_bytes()
    finally:
        go_on.set()
        door.join()


def test_a_checkpoint_that_a_reader_prevents_stays_due(store):
    store.add([key(), key()])
    store.database.checkpoint()
    store.database._connection.execute("PRAGMA busy_timeout=0")
    with closing(sqlite3.connect(store.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM key_chunks").fetchone()
        run_group(store.database, [take(store)] * 2)
        store.database.settle()
        assert store.database.unsettled
        reader.execute("ROLLBACK")
    store.database.settle()
    assert not store.database.unsettled
    assert store.path.with_name("s.db-wal").stat().st_size == 0


@pytest.mark.parametrize("calls", [1, 2])
def test_a_checkpoint_stays_due_when_the_anchor_refuses(store, calls):
    def refuse():
        raise StoreUnavailable("the anchor cannot be written")

    store.add([key() for _ in range(calls)])
    store.database.checkpoint()
    store.keys._seal = Anchor(refuse)
    got = run_group(store.database, [take(store)] * calls)
    assert [type(one) for one in got] == [StoreUnavailable] * calls
    assert store.database.unsettled


def test_what_a_killed_process_left_in_the_log_is_gone_when_its_store_is_open_again(store, tmp_path):
    rows = store.add([key(), key()])
    sealed = store.ciphertext(rows[0])
    store.database.checkpoint()
    run_group(store.database, [take(store)] * 2)  # and killed before it is settled
    copy = tmp_path / "copy" / "s.db"
    copy.parent.mkdir(mode=0o700)
    for name in ("s.db", "s.db-wal"):
        shutil.copy(store.path.with_name(name), copy.with_name(name))
    assert sealed in copy.read_bytes()
    with closing(Database(copy, store.database.vault)):
        assert sealed not in copy.read_bytes()


def test_a_thousand_deliveries_leave_no_reference_behind_in_the_connection(tmp_path):
    """Python's connection keeps one for each blob ever opened (CPython issue 144424): a key manager runs for years."""
    kek = FileKek.create(tmp_path / "kek", SystemRandomness())
    with closing(Database(":memory:", kek)) as database:
        keys = KeyRecords(database, SystemRandomness())
        with database.transaction() as cursor:
            keys.add(cursor, 1, 1, [key() for _ in range(1100)])
            keys.acknowledge(cursor, 1, 1)

        def references():
            gc.collect()
            return sum(type(thing) is weakref.ReferenceType for thing in gc.get_objects())

        keys.deliver_to_master("sae-a", "sae-b", 1, 2.0)
        before = references()
        for _ in range(1000):
            keys.deliver_to_master("sae-a", "sae-b", 1, 2.0)
        assert references() - before < 300  # of cursors it forgets every 200
