"""Keys for other key managers in a store of before: each had one leg, in the same row."""

import os

import pytest

from heliograph.errors import InsufficientKeys
from heliograph.kme.etsi020_records import Ack, AckStatus
from heliograph.storage.database import Database
from heliograph.storage.foreign_keys import ForeignKeys
from heliograph.storage.keys import KeyRecords
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

# As the release before wrote it.
BEFORE = """
CREATE TABLE foreign_keys(
  number INTEGER PRIMARY KEY AUTOINCREMENT, key_id TEXT NOT NULL UNIQUE, outgoing INTEGER NOT NULL,
  peer TEXT NOT NULL, initiator TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL,
  sealed BLOB, callback TEXT, owed TEXT, tries INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, at REAL NOT NULL);
"""
IDS = {
    state: f"00000000-0000-4000-8000-{number:012}" for number, state in enumerate(("offered", "assigned", "voiding"))
}


@pytest.fixture
def database(tmp_path):
    kek = FileKek.create(tmp_path / "kek", SystemRandomness())
    with_keys = Database(tmp_path / "store" / "store.db", kek, [BEFORE])
    with with_keys.transaction() as cursor:
        for state, key_id in IDS.items():
            value = (
                None if state == "voiding" else kek.seal(os.urandom(32), b"heliograph/1 foreign key " + key_id.encode())
            )
            cursor.execute(
                "INSERT INTO foreign_keys"
                "(key_id, outgoing, peer, initiator, target, state, sealed, tries, next_at, at) "
                "VALUES (?, 1, 'kme-2', 'sae-1', 'sae-2', ?, ?, 2, 0, 0)",
                (key_id, state, value),
            )
    yield with_keys
    with_keys.close()


def test_what_was_under_way_goes_on_after_the_change(database):
    keys = KeyRecords(database, SystemRandomness())
    store = ForeignKeys(database, keys)
    store = ForeignKeys(database, keys)  # opened again: nothing comes twice
    assert {state: store.legs(key_id) for state, key_id in IDS.items()} == {s: {"kme-2": s} for s in IDS}
    (outgoing,) = store.to_offer(1.0, 10)
    assert (outgoing.key_ids, outgoing.targets, len(outgoing.keys[0].value)) == ((IDS["offered"],), ("sae-2",), 32)
    assert [each.key_ids for each in store.to_void(1.0, 10)] == [(IDS["voiding"],)]
    assert store.under_way("sae-1", "sae-2") == 2
    with pytest.raises(InsufficientKeys):
        keys.deliver_to_master("sae-1", "sae-2", 1, 1.0, size_bytes=32)
    store.acknowledged("kme-2", [Ack(tuple(IDS.values()), AckStatus.RELAYED, "sae-1", ("sae-2",))], 1.0)
    given = keys.deliver_to_master("sae-1", "sae-2", 2, 1.0, size_bytes=32)
    assert {key.key_id for key in given} == {IDS["offered"], IDS["assigned"]}
    assert store.legs(IDS["voiding"]) == {"kme-2": "voiding"}  # a late word revives nothing
