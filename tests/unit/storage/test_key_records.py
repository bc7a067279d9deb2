import os
import resource
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from heliograph.errors import (
    InsufficientKeys,
    KeySupplyError,
    LocalProtocolError,
    NotPermitted,
    StoreUnavailable,
)
from heliograph.storage.database import Database
from heliograph.storage.key_counts import KeyCounts
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness


class Store:
    """A key store that can be closed and opened again."""

    def __init__(self, directory, *, in_memory=False):
        self.path = ":memory:" if in_memory else directory / "site" / "store.db"
        self.kek = directory / "kek"
        if not self.kek.exists():
            FileKek.create(self.kek, SystemRandomness())
        self.open()

    def open(self):
        self.database = Database(self.path, FileKek(self.kek, SystemRandomness()))
        self.keys = KeyRecords(self.database, SystemRandomness())

    def reopen(self):
        self.database.close()
        self.open()

    def add(self, block, rows, *, acknowledged=True, epoch=1):
        with self.database.transaction() as cursor:
            self.keys.add(cursor, epoch, block, rows, '{"protocol": "test"}')
            if acknowledged:
                self.keys.acknowledge(cursor, epoch, block)
        return rows

    def disk(self):
        self_path = Path(self.path)
        return b"".join(file.read_bytes() for file in sorted(self_path.parent.iterdir()))


def new(master, slave, created_at, *, here):
    return NewKey(str(uuid.uuid4()), master, slave, here, os.urandom(32), created_at)


def owned(number, created_at=100.0):
    return [new("sae-a", "sae-b", created_at, here=True) for _ in range(number)]


def held(number, created_at=100.0, master="sae-b", slave="sae-a"):
    return [new(master, slave, created_at, here=False) for _ in range(number)]


def spoil(cursor, key_id):
    """Alter one key's ciphertext, and no other one's."""
    chunk, place, sealed = cursor.execute(
        "SELECT chunk, place, ciphertext FROM key_records WHERE key_id = ?", (key_id,)
    ).fetchone()
    with cursor.connection.blobopen("key_ciphertexts", "ciphertexts", chunk) as blob:
        blob[place * len(sealed)] ^= 1


def pairs(keys):
    return [(key.key_id, key.material) for key in keys]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    yield store
    store.database.close()


def test_keys_of_one_pair_never_serve_another(store):
    store.add(1, owned(2))
    for master, slave in (("sae-b", "sae-a"), ("sae-a", "sae-c"), ("sae-c", "sae-b")):
        with pytest.raises(InsufficientKeys):
            store.keys.deliver_to_master(master, slave, 1, 200.0)


def test_keys_held_for_the_slave_are_not_given_to_a_master(store):
    store.add(1, held(2, master="sae-a", slave="sae-b"))
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)


def test_a_key_of_another_slave_is_not_permitted_and_stays(store):
    rows = store.add(1, held(1) + held(1, slave="sae-x"))
    with pytest.raises(NotPermitted):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[0].key_id, rows[1].key_id], 200.0)
    assert pairs(store.keys.deliver_to_slave("sae-x", "sae-b", [rows[1].key_id], 200.0)) == pairs(rows[1:])
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", [rows[0].key_id], 200.0)) == pairs(rows[:1])


def test_a_key_id_twice_in_one_request_is_refused(store):
    rows = store.add(1, held(1))
    with pytest.raises(KeySupplyError, match="each only once"):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[0].key_id] * 2, 200.0)
    assert store.keys.counts("sae-b", "sae-a").held == 1


def test_no_key_byte_reaches_the_disk_and_the_segment_key_goes_with_its_last_key(store):
    rows = store.add(1, owned(40))
    with store.database.reading() as cursor:
        sealed = cursor.execute("SELECT sealed_key FROM key_segments").fetchone()[0]
        ciphertexts = [row[0] for row in cursor.execute("SELECT ciphertext FROM key_records")]
    disk = store.disk()
    assert sealed in disk  # the scan would see what is there
    assert all(ciphertext in disk for ciphertext in ciphertexts)
    assert not any(row.material[:16] in disk or row.material[16:] in disk for row in rows)
    assert store.keys.metadata(1, 1) == '{"protocol": "test"}'
    store.keys.deliver_to_master("sae-a", "sae-b", 40, 200.0)
    disk = store.disk()
    assert sealed not in disk
    assert not any(ciphertext in disk for ciphertext in ciphertexts)
    assert not any(row.material[:16] in disk for row in rows)
    assert all(uuid.UUID(row.key_id).bytes in disk for row in rows)  # the tombstones
    assert store.keys.metadata(1, 1) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE key_audiences SET slave = 'sae-m'",
        "UPDATE key_chunks SET key_ids = CAST(zeroblob(8) || substr(key_ids, 9) AS BLOB)",
        "UPDATE key_chunks SET first = first + 7",
        "UPDATE key_chunks SET epoch = epoch + 1",
        "UPDATE key_ciphertexts SET ciphertexts = substr(ciphertexts, 2)",
        "DELETE FROM key_ciphertexts",
    ],
)
def test_a_record_moved_to_another_name_or_place_does_not_open(store, change):
    store.add(1, owned(1))
    with store.database.transaction() as cursor:
        cursor.execute(change)
    slave = "sae-m" if "sae-m" in change else "sae-b"
    with pytest.raises(StoreUnavailable, match="altered"):
        store.keys.deliver_to_master("sae-a", slave, 1, 200.0)


def test_with_another_kek_nothing_opens_and_nothing_is_burnt(store):
    rows = store.add(1, owned(2))
    store.database.close()
    other = FileKek.create(store.kek.with_name("other"), SystemRandomness())
    database = Database(store.path, other)
    with pytest.raises(StoreUnavailable, match="not the key-encryption key"):
        KeyRecords(database, SystemRandomness()).deliver_to_master("sae-a", "sae-b", 1, 200.0)
    database.close()
    store.open()
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows)


def test_a_discarded_block_is_gone_and_its_epoch_can_be_forgotten(store):
    rows = store.add(1, owned(3))
    with store.database.transaction() as cursor:
        assert store.keys.discard(cursor, 1, 1, 200.0) == 3
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    with store.database.transaction() as cursor:
        assert store.keys.forget_epochs_before(cursor, 1) == 0
        assert store.keys.forget_epochs_before(cursor, 2) == 3
    assert not store.keys.known(rows[0].key_id)


def test_the_block_and_its_keys_are_stored_together_or_not_at_all(store):
    def store_half():
        with store.database.transaction() as cursor:
            store.keys.add(cursor, 1, 1, owned(5))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        store_half()
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts()


DELIVER_UNTIL_KILLED = """
import os, sys
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness
keys = KeyRecords(Database(sys.argv[1], FileKek(sys.argv[2], SystemRandomness())), SystemRandomness())
while True:
    (key,) = keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    os.write(1, f"{key.key_id} {key.material.hex()}\\n".encode())
"""


@pytest.mark.parametrize("after", [1, 7, 40, 90])
def test_kill_9_at_any_moment_delivers_no_key_twice(store, after):
    rows = {row.key_id: row.material for row in store.add(1, owned(300)) + store.add(2, owned(300))}
    store.database.close()
    program = subprocess.Popen(
        [sys.executable, "-c", DELIVER_UNTIL_KILLED, str(store.path), str(store.kek)], stdout=subprocess.PIPE
    )
    seen = [program.stdout.readline() for _ in range(after)]
    program.send_signal(signal.SIGKILL)
    seen += program.stdout.read().splitlines(keepends=True)
    program.wait()
    program.stdout.close()
    first = dict(line.decode().split() for line in seen if line.endswith(b"\n"))
    store.open()
    left = store.keys.stored_key_count("sae-a", "sae-b")
    rest = store.keys.deliver_to_master("sae-a", "sae-b", left, 201.0)
    assert len(first) >= after
    assert not first.keys() & {key.key_id for key in rest}
    # At most the one key whose answer was under way is lost; none is damaged.
    assert len(rows) - len(first) - left in (0, 1)
    assert all(rows[key_id].hex() == material for key_id, material in first.items())
    assert all(rows[key.key_id] == key.material for key in rest)


def test_a_full_disk_refuses_and_burns_nothing(store):
    rows = store.add(1, owned(30))
    store.database.checkpoint()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StoreUnavailable, match="check the disk"):
            store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 30, 200.0)) == pairs(rows)
    store.reopen()
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts()


def test_a_block_is_stored_once(store):
    store.add(1, owned(1))
    with pytest.raises(LocalProtocolError, match="stored already"):
        store.add(1, owned(1))
