"""Deliveries that commit together: each all or none, none told before it is durable, none twice."""

import os
import sqlite3
import uuid

import pytest

from heliograph.errors import InsufficientKeys, KeyNotFound, LocalProtocolError, StoreUnavailable
from heliograph.storage.database import Database
from heliograph.storage.group_commit import run_group
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.storage.store_seal import StoreSeal
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class CountingAnchor:
    """A real anchor that also notes what the store held when it was told."""

    def __init__(self, path, store):
        self.anchor, self.store, self.told = FileAnchor(path), store, []

    def read(self):
        return self.anchor.read()

    def advance(self, epoch, block):
        before = self.anchor.read()
        self.anchor.advance(epoch, block)
        if self.anchor.read() != before:
            with sqlite3.connect(self.store) as reader:  # another connection sees what is committed, and no more
                self.told.append((epoch, reader.execute("SELECT count(*) FROM key_tombstones").fetchone()[0]))
            reader.close()


@pytest.fixture
def store(tmp_path):
    FileKek.create(tmp_path / "kek", SystemRandomness())
    path = tmp_path / "store" / "s.db"
    database = Database(path, FileKek(tmp_path / "kek", SystemRandomness()))
    anchor = CountingAnchor(tmp_path / "anchor", path)
    keys = KeyRecords(database, SystemRandomness(), StoreSeal(database, anchor))
    rows = [
        NewKey(str(uuid.uuid4()), "sae-a", "sae-b", owner_here=True, material=os.urandom(32), created_at=1.0)
        for _ in range(10)
    ]
    with database.transaction() as cursor:
        keys.add(cursor, 1, 1, rows)
        keys.acknowledge(cursor, 1, 1)
    yield database, keys, anchor, rows
    database.close()


def get(keys, number):
    return lambda: keys.deliver_to_master("sae-a", "sae-b", number, 2.0)


def test_each_of_a_group_gets_its_own_keys_and_a_refusal_touches_no_other(store):
    database, keys, _, rows = store
    named = lambda: keys.deliver_to_slave("sae-a", "sae-b", [UNKNOWN], 2.0)  # noqa: E731
    first, none, second, absent, third = run_group(
        database, [get(keys, 2), get(keys, 9), get(keys, 1), named, get(keys, 3)]
    )
    assert isinstance(none, InsufficientKeys)
    assert isinstance(absent, KeyNotFound)
    assert [k.key_id for k in (*first, *second, *third)] == [r.key_id for r in rows[:6]]
    assert keys.stored_key_count("sae-a", "sae-b") == 4
    assert keys.delivered_counts() == (6, 0)


def test_the_anchor_is_told_once_for_a_group_and_only_after_its_commit(store):
    database, keys, anchor, _ = store
    run_group(database, [get(keys, 1) for _ in range(5)])
    assert anchor.told == [(1, 5)]  # one use of the store, five keys gone


def test_a_group_that_cannot_be_committed_tells_no_key_and_takes_none(store):
    database, keys, anchor, _ = store

    def full():
        database._connection.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
        raise StoreUnavailable("the disk is full")

    outcomes = run_group(database, [get(keys, 2), full, get(keys, 1)])
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert keys.stored_key_count("sae-a", "sae-b") == 10
    assert anchor.told == []
    assert len(get(keys, 10)()) == 10  # and the store goes on


def test_an_anchor_that_cannot_be_written_tells_no_key(store):
    database, keys, anchor, _ = store

    def broken(_epoch, _block):
        raise StoreUnavailable("anchor: no space")

    anchor.advance = broken
    outcomes = run_group(database, [get(keys, 2), get(keys, 1)])
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert keys.stored_key_count("sae-a", "sae-b") == 7  # burnt: on the disk before the anchor failed


def test_a_damaged_key_costs_its_own_request_and_is_set_aside(store):
    database, keys, _, rows = store
    with database.transaction() as cursor, cursor.connection.blobopen("key_ciphertexts", "ciphertexts", 1) as blob:
        blob[48:96] = b"x" * 48  # of rows[1]
    one, damaged, two = run_group(database, [get(keys, 1), get(keys, 1), get(keys, 1)])
    assert isinstance(damaged, StoreUnavailable)
    assert [k.key_id for k in (*one, *two)] == [rows[0].key_id, rows[2].key_id]


def test_a_transaction_inside_another_is_refused_in_a_group_too(store):
    database, _, _, _ = store
    with database.group(), database.transaction():
        with pytest.raises(LocalProtocolError), database.transaction():
            pass
        with pytest.raises(LocalProtocolError), database.group():
            pass


def test_while_the_anchor_cannot_be_told_no_more_keys_are_burnt_and_then_it_goes_on(store):
    """A disk that is full for the anchor alone: retries would drain the stock, each with a 503."""
    database, keys, anchor, _ = store
    advance = anchor.advance

    def full(*_):
        raise StoreUnavailable("the anchor's disk is full")

    anchor.advance = full
    for _ in range(5):
        assert all(isinstance(found, StoreUnavailable) for found in run_group(database, [get(keys, 1), get(keys, 1)]))
    anchor.advance = advance
    with database.reading() as cursor:
        assert cursor.execute("SELECT count(*) FROM key_tombstones").fetchone()[0] == 2  # of the first group alone
    assert len(keys.deliver_to_master("sae-a", "sae-b", 8, 2.0)) == 8
    with database.reading() as cursor:
        assert anchor.read()[0] == cursor.execute("SELECT runs FROM store_seal").fetchone()[0]
