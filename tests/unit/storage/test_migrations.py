"""An older store comes up whole, a newer one is refused, and a crash on the way leaves the old one."""

import hashlib
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError, InsufficientKeys, KeyNotFound, NotPermitted, StoreUnavailable
from heliograph.protocol.audience import audience_name
from heliograph.storage import migrations
from heliograph.storage.database import SCHEMA_VERSION, Database
from heliograph.storage.key_counts import KeyCounts
from heliograph.storage.keys import KeyRecords
from heliograph.storage.migrations import migrate_store
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

FIXTURE = Path(__file__).with_name("schema_1.sql")
TWO_SIZES = Path(__file__).with_name("schema_3.sql")  # the last form with one line for all sizes
LAST_ROWS = Path(__file__).with_name("schema_2.sql")  # the last form with one row for each key
GROUP = audience_name(["sae-b", "sae-c", "sae-l"])


@pytest.fixture
def old(tmp_path):
    """Return a store that the first form of schema 1 wrote, with its key-encryption key."""
    return written(tmp_path, FIXTURE.read_text())


@pytest.fixture
def rows(tmp_path):
    """Return a store with one row for each key: pairs, groups, pending, damaged, released and gone keys."""
    return written(tmp_path, LAST_ROWS.read_text())


def written(tmp_path, text):
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
    database = Database(path, FileKek(path.parent.parent / "kek", SystemRandomness()))
    return database, KeyRecords(database, SystemRandomness())


def shape(path):
    """Return what a store is made of, each part's definition without what only says how it was written down."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            (kind, name, " ".join(sql.replace("IF NOT EXISTS ", "").replace('"', "").split()))
            for kind, name, sql in connection.execute(
                "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
            )
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
    database = Database(fresh, FileKek(tmp_path / "kek", SystemRandomness()))
    KeyRecords(database, SystemRandomness())
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


def key_id(number):
    return str(uuid.UUID(bytes=hashlib.sha256(b"id %d" % number).digest()[:16], version=4))


def material(number):
    return hashlib.sha256(b"key %d" % number).digest()


def test_rows_become_chunks_and_every_key_keeps_its_bytes_its_fate_and_its_owner(rows):
    assert migrate_store(rows) == (2, SCHEMA_VERSION)
    database, keys = open_keys(rows)
    assert keys.counts("sae-a", "sae-b") == KeyCounts(pending=2, deliverable=3)
    assert keys.counts("sae-b", "sae-a").held == 7
    assert keys.counts("sae-a", "sae-x") == KeyCounts(deliverable=3, damaged=1)
    assert keys.counts("sae-a", GROUP) == KeyCounts(deliverable=1, released=1)
    assert keys.delivered_counts() == (1, 1)
    # A key in the middle of a block had left: the others were encrypted at positions that are no row any more.
    got = keys.deliver_to_master("sae-a", "sae-b", 3, 300.0)
    assert [(key.key_id, key.material) for key in got] == [(key_id(n), material(n)) for n in (4, 8, 12)]
    assert [key.material for key in keys.deliver_to_master("sae-a", "sae-x", 3, 300.0)] == [
        material(n) for n in (6, 10, 14)
    ]
    held = [15, 1, 9]
    got = keys.deliver_to_slave("sae-a", "sae-b", [key_id(n) for n in held], 300.0)
    assert [key.material for key in got] == [material(n) for n in held]
    with database.transaction() as cursor:
        assert keys.acknowledge(cursor, 1, 2) == 2
    assert [key.material for key in keys.deliver_to_master("sae-a", "sae-b", 2, 300.0)] == [
        material(n) for n in (20, 21)
    ]
    database.close()


def test_a_group_has_the_shares_left_that_it_had(rows):
    migrate_store(rows)
    database, keys = open_keys(rows)
    assert keys.deliver_to_slave("sae-l", "sae-a", [key_id(30)], 300.0)[0].material == material(30)
    with pytest.raises(KeyNotFound):  # the master does not have it yet
        keys.deliver_to_slave("sae-l", "sae-a", [key_id(31)], 300.0)
    with pytest.raises(KeyNotFound):  # fetched before the migration
        keys.deliver_to_slave("sae-c", "sae-m", [key_id(32)], 300.0)
    assert keys.deliver_to_slave("sae-b", "sae-m", [key_id(32)], 300.0)[0].material == material(32)
    database.close()


def test_a_key_that_was_gone_stays_known_and_refused(rows):
    migrate_store(rows)
    database, keys = open_keys(rows)
    for number in (0, 7, 40, 50):
        assert keys.known(key_id(number))
    for number, master, slave in ((7, "sae-b", "sae-a"), (40, "sae-a", "sae-b")):
        with pytest.raises(KeyNotFound):
            keys.deliver_to_slave(slave, master, [key_id(number)], 300.0)
    with pytest.raises(NotPermitted):  # and to whom it was allocated is remembered
        keys.deliver_to_slave("sae-x", "sae-b", [key_id(7)], 300.0)
    with database.reading() as cursor:
        fates = dict(cursor.execute("SELECT key_id, fate FROM key_tombstones").fetchall())
    assert fates == {
        key_id(n): fate for n, fate in ((0, "delivered"), (7, "delivered"), (40, "discarded"), (50, "expired"))
    }
    database.close()


def test_no_ciphertext_of_the_old_rows_is_left_beside_the_chunks(rows):
    """The old tables go with their pages overwritten: what is delivered later is then nowhere in the file."""
    with closing(sqlite3.connect(rows)) as connection:
        (sealed,) = connection.execute("SELECT ciphertext FROM key_records WHERE key_id = ?", (key_id(4),)).fetchone()
    assert sealed in rows.read_bytes()
    migrate_store(rows)
    database, keys = open_keys(rows)
    keys.deliver_to_master("sae-a", "sae-b", 1, 300.0)
    database.checkpoint()
    assert sealed not in rows.read_bytes()
    database.close()


def refused_migration(path):
    """Return the text of a refusal, empty if there was none; any other error is the test's."""
    try:
        migrate_store(path)
    except (ConfigurationError, StoreUnavailable) as why:
        return str(why)
    return ""


WRONG = [
    "'no-uuid'",
    "NULL",
    "''",
    "-1",
    "7.5",
    "4294967296",
    "9e999",
    "X'00'",
    "X''",
    "'19C79CA7-B1D4-4237-862B-300CBADD7B43'",
]
COLUMNS = {
    "key_records": "key_id segment position master slave owner_here state created_at ciphertext",
    "key_tombstones": "key_id master slave owner_here epoch fate at",
    "key_segments": "segment epoch block sealed_key metadata",
    "key_shares": "key_id sae served_at",
}


def test_a_key_id_that_is_no_uuid_is_named_with_its_remedy_and_nothing_is_changed(rows):
    with closing(sqlite3.connect(rows)) as connection, connection:
        connection.execute("UPDATE key_records SET key_id = 'key 17' WHERE key_id = ?", (key_id(4),))
    before = rows.read_bytes()
    with pytest.raises(
        ConfigurationError, match=r"key_records, key_ID 'key 17': key_id .*nothing was changed; with"
    ) as no:
        migrate_store(rows)
    assert str(rows) in str(no.value)
    assert "\n" not in str(no.value)
    assert rows.read_bytes() == before


@pytest.mark.parametrize("table", COLUMNS)
def test_whatever_one_column_of_an_old_store_holds_it_is_carried_over_or_refused_in_one_line(rows, table):
    """One value at a time in one row: never a traceback, and never a key fewer than there were."""
    untouched, counted = rows.read_bytes(), "SELECT count(*) FROM key_list"
    refused = 0
    for column in COLUMNS[table].split():
        for value in WRONG:
            rows.write_bytes(untouched)
            try:
                with closing(sqlite3.connect(rows)) as connection, connection:
                    connection.execute(
                        f"UPDATE {table} SET {column} = {value} WHERE rowid = 1"
                        if table == "key_segments"
                        else f"UPDATE {table} SET {column} = {value} WHERE key_id = "
                        f"(SELECT key_id FROM {table} LIMIT 1)"
                    )
                    old = sum(
                        connection.execute(f"SELECT count(*) FROM key_{t}").fetchone()[0]
                        for t in ("records", "tombstones")
                    )
            except sqlite3.Error:
                continue  # the old schema does not take it
            before = rows.read_bytes()
            if refusal := refused_migration(rows):
                refused += 1
                assert "\n" not in refusal
                assert "nothing was changed" in refusal
                assert rows.read_bytes() == before
                continue
            with closing(sqlite3.connect(rows)) as connection:
                assert connection.execute(counted).fetchone()[0] == old, (column, value)
    assert refused or table in {"key_segments", "key_shares"}


@pytest.mark.parametrize("version", [-1, -(2**31)])
def test_a_version_that_never_was_is_refused(rows, version):
    with closing(sqlite3.connect(rows)) as connection:
        connection.execute(f"PRAGMA user_version={version}")
    with pytest.raises(ConfigurationError, match="no store of this program"):
        migrate_store(rows)


def test_a_key_whose_segment_is_gone_is_named_not_dropped(rows):
    with closing(sqlite3.connect(rows)) as connection, connection:
        connection.execute("DELETE FROM key_segments WHERE segment = 2")
    with pytest.raises(ConfigurationError, match="its segment is not there"):
        migrate_store(rows)


@pytest.fixture
def mixed(tmp_path):
    """Return a store in which one line of keys has those of 256 and of 512 bits."""
    return written(tmp_path, TWO_SIZES.read_text())


def long_material(number):
    return hashlib.sha512(b"key %d" % number).digest()


def test_keys_of_two_sizes_in_one_line_become_two_pools(mixed):
    assert migrate_store(mixed) == (3, SCHEMA_VERSION)
    database, keys = open_keys(mixed)
    assert keys.counts("sae-a", "sae-b") == KeyCounts(pending=1, deliverable=2, damaged=1)
    assert keys.counts("sae-a", "sae-b", 64) == keys.counts("sae-a", "sae-b")  # those of 256 bits have all left
    assert keys.delivered_counts() == (7, 1)
    with pytest.raises(InsufficientKeys):
        keys.deliver_to_master("sae-a", "sae-b", 1, 300.0, size_bytes=32)
    got = keys.deliver_to_master("sae-a", "sae-b", 2, 300.0, size_bytes=64)
    assert [(key.key_id, key.material) for key in got] == [(key_id(n), long_material(n)) for n in (22, 23)]
    with database.transaction() as cursor:
        assert keys.acknowledge(cursor, 1, 3) == 1
    assert keys.deliver_to_master("sae-a", "sae-b", 1, 300.0, size_bytes=64)[0].material == long_material(40)
    database.close()


def test_the_slaves_side_a_group_and_what_was_gone_are_divided_too(mixed):
    migrate_store(mixed)
    database, keys = open_keys(mixed)
    assert [keys.counts("sae-b", "sae-a", size).held for size in (32, 64, None)] == [1, 2, 3]
    got = keys.deliver_to_slave("sae-a", "sae-b", [key_id(31), key_id(11), key_id(30)], 300.0)
    assert [key.material for key in got] == [long_material(31), material(11), long_material(30)]
    group = audience_name(["sae-b", "sae-l"])
    assert keys.counts("sae-a", group, 32) == KeyCounts(deliverable=1, released=1)
    assert keys.deliver_to_slave("sae-l", "sae-a", [key_id(50)], 300.0)[0].material == material(50)
    assert keys.known(key_id(60))
    with pytest.raises(InsufficientKeys):
        keys.deliver_to_master("sae-a", "sae-x", 1, 300.0)
    database.close()


def test_a_store_that_never_had_a_key_is_brought_up_too(tmp_path):
    path = written(tmp_path, "-- kek: " + "00" * 32 + "\nPRAGMA user_version=3;")
    assert migrate_store(path) == (3, SCHEMA_VERSION)


@pytest.mark.parametrize("left", [0, 3, 48, 141, 150, 191, 192, 239, 241, 288])
def test_sealed_bytes_of_a_wrong_length_are_named_and_do_not_become_a_pool_that_nobody_opens(mixed, left):
    """Chunk 4 has two keys of 512 bits, 160 bytes, and chunk 3 of the same block has four."""
    with closing(sqlite3.connect(mixed)) as connection, connection:
        connection.execute("UPDATE key_ciphertexts SET ciphertexts = zeroblob(?) WHERE chunk = 4", (left,))
    before = mixed.read_bytes()
    refusal = refused_migration(mixed)
    assert f"key_chunks, chunk 4: its ciphertexts have {left} bytes, which is not what its 2 keys take" in refusal
    assert "sets them aside when one is asked for; nothing was changed; with" in refusal
    assert "\n" not in refusal
    assert mixed.read_bytes() == before


def test_keys_that_were_set_aside_do_not_keep_a_store_from_its_migration_and_are_still_counted(mixed):
    with closing(sqlite3.connect(mixed)) as connection, connection:
        connection.execute("UPDATE key_ciphertexts SET ciphertexts = zeroblob(7) WHERE chunk = 4")
        connection.execute("UPDATE key_chunks SET fates = X'0202', waiting = 0 WHERE chunk = 4")
    assert migrate_store(mixed) == (3, SCHEMA_VERSION)
    database, keys = open_keys(mixed)
    assert keys.counts("sae-b", "sae-a") == KeyCounts(held=1, damaged=2)
    with pytest.raises(KeyNotFound):
        keys.deliver_to_slave("sae-a", "sae-b", [key_id(30)], 300.0)
    database.close()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("DELETE FROM key_ciphertexts", "its ciphertexts are not there"),
        ("UPDATE key_ciphertexts SET ciphertexts = 'abc'", "its ciphertexts are not there"),
        ("UPDATE key_chunks SET fates = x''", "fates has an unknown form"),
        ("UPDATE key_chunks SET fates = 'abc'", "fates has an unknown form"),
        ("UPDATE key_chunks SET fates = zeroblob(99)", "fates has an unknown form"),
        ("UPDATE key_chunks SET audience = 99", "its audience is not there"),
    ],
)
def test_a_chunk_whose_keys_would_be_lost_is_named_with_its_remedy_and_nothing_is_changed(mixed, change, what):
    with closing(sqlite3.connect(mixed)) as connection, connection:
        connection.execute(change)
    before = mixed.read_bytes()
    refusal = refused_migration(mixed)
    assert f"{what}; nothing was changed; with" in refusal
    assert "key_chunks, chunk " in refusal
    assert "\n" not in refusal
    assert mixed.read_bytes() == before
