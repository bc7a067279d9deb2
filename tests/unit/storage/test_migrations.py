"""An older store comes up whole, a newer one is refused, and a crash on the way leaves the old one."""

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError, InsufficientKeys, StoreUnavailable
from heliograph.storage import migrations
from heliograph.storage.database import SCHEMA_VERSION, Database
from heliograph.storage.keys import KeyRecords
from heliograph.storage.migrations import migrate_store
from heliograph.vault.filekek import FileKek

FIXTURE = Path(__file__).with_name("schema_1.sql")


class OsRandom:
    kind = "computational"

    def draw(self, size):
        return os.urandom(size)


@pytest.fixture
def old(tmp_path):
    """Return a store that the first form of schema 1 wrote, with its key-encryption key."""
    text = FIXTURE.read_text()
    kek = tmp_path / "kek"
    kek.write_bytes(bytes.fromhex(text.split("-- kek: ")[1].split("\n")[0]))
    kek.chmod(0o600)
    path = tmp_path / "store" / "site.db"
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(text)
    path.chmod(0o600)
    return path


def open_keys(path):
    database = Database(path, FileKek(path.parent.parent / "kek", OsRandom()))
    return database, KeyRecords(database, OsRandom())


def shape(path):
    with closing(sqlite3.connect(path)) as connection:
        return {
            (kind, name)
            for kind, name in connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        }


def test_an_old_store_is_refused_until_it_is_migrated_and_keeps_its_keys(old):
    with pytest.raises(ConfigurationError, match=r"older release .schema 1.*heliograph store migrate"):
        open_keys(old)
    assert migrate_store(old) == (1, SCHEMA_VERSION)
    assert migrate_store(old) == (SCHEMA_VERSION, SCHEMA_VERSION)
    database, keys = open_keys(old)
    taken = keys.deliver_to_master("sae-a", "sae-b", 3, 300.0)
    assert [key.material for key in taken] == [hashlib.sha256(b"key %d" % i).digest() for i in (1, 2, 3)]
    with pytest.raises(InsufficientKeys):  # the one that was delivered before stays delivered
        keys.deliver_to_master("sae-a", "sae-b", 1, 300.0)
    assert keys.delivered_counts() == (4, 0)
    assert keys.counts("sae-b", "sae-a").held == 2
    database.close()


def test_a_migrated_store_has_the_shape_of_a_new_one(old, tmp_path):
    migrate_store(old)
    fresh = tmp_path / "fresh" / "site.db"
    database = Database(fresh, FileKek(tmp_path / "kek", OsRandom()))
    KeyRecords(database, OsRandom())
    database.close()
    of_keys = {entry for entry in shape(old) if entry[1].startswith("key_")}
    assert of_keys == shape(fresh)


def test_a_migration_that_fails_leaves_the_old_store(old, monkeypatch):
    before = old.read_bytes()
    last = SCHEMA_VERSION - 1
    broken = {**migrations.MIGRATIONS, last: (*migrations.MIGRATIONS[last], "INSERT INTO no_such_table VALUES (1)")}
    monkeypatch.setattr(migrations, "MIGRATIONS", broken)
    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        migrate_store(old)
    assert old.read_bytes() == before
    monkeypatch.undo()
    assert migrate_store(old) == (1, SCHEMA_VERSION)


def test_a_newer_store_is_refused_in_one_line(old):
    with closing(sqlite3.connect(old)) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    for opening in (migrate_store, open_keys):
        with pytest.raises(ConfigurationError, match="newer release") as refusal:
            opening(old)
        assert "\n" not in str(refusal.value)


def test_a_store_in_use_an_absent_one_and_no_store_are_refused(old, tmp_path):
    with pytest.raises(ConfigurationError, match="there is none"):
        migrate_store(tmp_path / "absent.db")
    migrate_store(old)
    database, _ = open_keys(old)
    with pytest.raises(ConfigurationError, match="another process has it open"):
        migrate_store(old)
    database.close()
    blank = old.with_name("blank.db")
    blank.touch(0o600)
    with pytest.raises(ConfigurationError, match="no store of this program"):
        migrate_store(blank)
