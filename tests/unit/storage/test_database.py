import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError, LocalProtocolError, StoreUnavailable
from heliograph.storage.database import SCHEMA_VERSION, Database
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

NOTES = "CREATE TABLE IF NOT EXISTS notes(text TEXT NOT NULL)"


@pytest.fixture
def vault(tmp_path):
    return FileKek.create(tmp_path / "kek", SystemRandomness())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "site" / "store.db"


def notes(database):
    with database.reading() as cursor:
        return [text for (text,) in cursor.execute("SELECT text FROM notes ORDER BY rowid")]


def write(database, text):
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO notes VALUES (?)", (text,))


def test_what_was_committed_is_there_after_reopening(path, vault):
    database = Database(path, vault, [NOTES])
    write(database, "kept")
    database.close()
    database.close()
    again = Database(path, vault, [NOTES])
    assert notes(again) == ["kept"]
    again.close()


def test_a_commit_is_synchronous_and_deletion_overwrites(path, vault):
    database = Database(path, vault)
    with database.reading() as cursor:
        found = {
            name: cursor.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys", "temp_store", "user_version")
        }
    database.close()
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "secure_delete": 1,
        "foreign_keys": 1,
        "temp_store": 2,
        "user_version": SCHEMA_VERSION,
    }


def test_a_transaction_that_raises_leaves_nothing(path, vault):
    database = Database(path, vault, [NOTES])

    def write_half():
        with database.transaction() as cursor:
            cursor.execute("INSERT INTO notes VALUES ('half')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert notes(database) == []
    write(database, "next")
    assert notes(database) == ["next"]
    database.close()


def test_a_transaction_inside_another_is_refused_and_both_are_undone(vault):
    database = Database(":memory:", vault, [NOTES])
    with pytest.raises(LocalProtocolError, match="pass its cursor on"), database.transaction():
        write(database, "inner")
    assert notes(database) == []
    database.close()


def test_only_the_owner_can_read_the_files(path, vault):
    database = Database(path, vault, [NOTES])
    write(database, "x")
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert {"store.db", "store.db-wal", "store.db-shm", "store.db.lock"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    database.close()


@pytest.mark.parametrize("what", ["directory", "file"])
def test_a_store_that_others_can_read_is_refused(path, vault, what):
    Database(path, vault).close()
    (path.parent if what == "directory" else path).chmod(0o755)
    with pytest.raises(ConfigurationError, match="chmod"):
        Database(path, vault)
    path.parent.chmod(0o700)
    path.chmod(0o600)
    Database(path, vault).close()


def test_one_store_is_open_in_one_process(path, vault):
    database = Database(path, vault)
    with pytest.raises(ConfigurationError, match="another process has it open"):
        Database(path, vault)
    script = (
        "import sys\nfrom heliograph.storage.database import Database\n"
        "from heliograph.errors import ConfigurationError\n"
        "try:\n    Database(sys.argv[1], None)\nexcept ConfigurationError as error:\n    print(error)\n"
    )
    program = [sys.executable, "-c", script, str(path)]
    answer = subprocess.run(program, capture_output=True, text=True, check=True)
    assert answer.stdout == f"store {path}: another process has it open; stop that one first\n"
    database.close()
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout == ""


def test_a_store_of_a_newer_release_is_refused(path, vault):
    Database(path, vault).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer release"):
        Database(path, vault)


def test_a_file_that_is_no_store_is_refused_in_one_line(path, vault):
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"this is not a database" * 100)
    path.chmod(0o600)
    with pytest.raises(StoreUnavailable, match="is not a store") as refusal:
        Database(path, vault)
    assert "\n" not in str(refusal.value)
    assert path.read_bytes() == b"this is not a database" * 100


def test_a_directory_that_cannot_be_made_is_named(tmp_path, vault):
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(ConfigurationError, match="plain"):
        Database(tmp_path / "plain" / "store.db", vault)


def test_a_full_disk_is_named_and_changes_nothing(path, vault):
    database = Database(path, vault, [NOTES])
    write(database, "before")
    with database.reading() as cursor:
        pages = cursor.execute("PRAGMA page_count").fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="disk is full"):
        write(database, "x" * 100_000)
    assert notes(database) == ["before"]
    with database.reading() as cursor:
        cursor.execute("PRAGMA max_page_count = 100000")
    write(database, "after")
    assert notes(database) == ["before", "after"]
    database.close()


def test_a_damaged_file_is_named(path, vault):
    database = Database(path, vault, [NOTES])
    for _ in range(50):
        write(database, "y" * 4000)
    database.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    database = Database(path, vault)
    with pytest.raises(StoreUnavailable, match="damaged"):
        notes(database)
    database.close()


def test_a_closed_store_answers_with_store_unavailable(vault):
    database = Database(":memory:", vault, [NOTES])
    database.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        write(database, "late")


def test_a_checkpoint_empties_the_log(path, vault):
    database = Database(path, vault, [NOTES])
    write(database, "x")
    log = Path(f"{path}-wal")
    assert log.stat().st_size > 0
    assert database.checkpoint()
    assert log.stat().st_size == 0
    database.close()
