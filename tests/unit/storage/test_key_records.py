import os
import resource
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from heliograph.errors import (
    InsufficientKeys,
    KeyNotFound,
    KeySupplyError,
    LocalProtocolError,
    NotPermitted,
    StoreUnavailable,
)
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyCounts, KeyRecords, NewKey
from heliograph.vault.filekek import FileKek


class OsRandom:
    kind = "computational"

    def draw(self, size):
        return os.urandom(size)


class Store:
    """A key store that can be closed and opened again."""

    def __init__(self, directory, *, in_memory=False):
        self.path = ":memory:" if in_memory else directory / "site" / "store.db"
        self.kek = directory / "kek"
        if not self.kek.exists():
            FileKek.create(self.kek, OsRandom())
        self.open()

    def open(self):
        self.database = Database(self.path, FileKek(self.kek, OsRandom()))
        self.keys = KeyRecords(self.database, OsRandom())

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


def test_a_key_is_delivered_once_oldest_first_with_its_own_bytes(store):
    rows = store.add(1, owned(3)) + store.add(2, owned(3))
    taken = [key for number in (2, 3, 1) for key in store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)]
    assert pairs(taken) == pairs(rows)
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert store.keys.delivered_key_ids(owner_here=True) == [row.key_id for row in rows]


def test_too_few_keys_burn_none(store):
    rows = store.add(1, owned(3))
    with pytest.raises(InsufficientKeys, match="4 asked for, 3 stored"):
        store.keys.deliver_to_master("sae-a", "sae-b", 4, 200.0)
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 3, 200.0)) == pairs(rows)


def test_a_key_the_peer_has_not_acknowledged_is_not_delivered(store):
    rows = store.add(1, owned(2), acknowledged=False)
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(pending=2)
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    with store.database.transaction() as cursor:
        assert store.keys.acknowledge(cursor, 1, 1) == 2
    assert store.keys.stored_key_count("sae-a", "sae-b") == 2
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows)


def test_keys_of_one_pair_never_serve_another(store):
    store.add(1, owned(2))
    for master, slave in (("sae-b", "sae-a"), ("sae-a", "sae-c"), ("sae-c", "sae-b")):
        with pytest.raises(InsufficientKeys):
            store.keys.deliver_to_master(master, slave, 1, 200.0)


def test_keys_held_for_the_slave_are_not_given_to_a_master(store):
    store.add(1, held(2, master="sae-a", slave="sae-b"))
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)


def test_the_slave_gets_the_named_keys_in_the_order_asked(store):
    rows = store.add(1, held(4))
    wanted = [rows[2], rows[0], rows[3]]
    got = store.keys.deliver_to_slave("sae-a", "sae-b", [row.key_id for row in wanted], 200.0)
    assert pairs(got) == pairs(wanted)
    assert store.keys.counts("sae-b", "sae-a") == KeyCounts(held=1)


@pytest.mark.parametrize("case", ["unknown", "delivered", "expired", "other master", "owned here"])
def test_one_bad_key_id_burns_none(store, case):
    rows = store.add(1, held(3))
    bad = {
        "unknown": str(uuid.uuid4()),
        "delivered": rows[2].key_id,
        "expired": store.add(2, held(1, created_at=1.0))[0].key_id,
        "other master": store.add(3, held(1, master="sae-z"))[0].key_id,
        "owned here": store.add(4, [new("sae-b", "sae-a", 100.0, here=True)])[0].key_id,
    }[case]
    store.keys.deliver_to_slave("sae-a", "sae-b", [rows[2].key_id], 200.0)
    store.keys.expire(50.0, 200.0)
    with pytest.raises(KeyNotFound, match="one or more keys specified are not found on KME"):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[0].key_id, bad], 200.0)
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", [row.key_id for row in rows[:2]], 200.0)) == pairs(
        rows[:2]
    )


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


def test_a_delivered_key_is_gone_after_a_restart_and_the_others_are_not(store):
    rows = store.add(1, owned(4)) + store.add(2, held(2))
    store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)
    store.keys.deliver_to_slave("sae-a", "sae-b", [rows[4].key_id], 200.0)
    store.reopen()
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 201.0)) == pairs(rows[2:4])
    with pytest.raises(KeyNotFound):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[4].key_id], 201.0)
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", [rows[5].key_id], 201.0)) == pairs(rows[5:])


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


def test_an_altered_key_is_set_aside_and_the_next_ones_are_served(store):
    rows = store.add(1, owned(3))
    with store.database.transaction() as cursor:
        spoil(cursor, rows[0].key_id)
    with pytest.raises(StoreUnavailable, match=rows[0].key_id):
        store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(deliverable=2, damaged=1)
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows[1:])


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
    other = FileKek.create(store.kek.with_name("other"), OsRandom())
    database = Database(store.path, other)
    with pytest.raises(StoreUnavailable, match="not the key-encryption key"):
        KeyRecords(database, OsRandom()).deliver_to_master("sae-a", "sae-b", 1, 200.0)
    database.close()
    store.open()
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows)


def test_a_block_and_a_key_id_are_stored_once(store):
    rows = store.add(1, owned(1))
    with pytest.raises(LocalProtocolError, match="stored already"):
        store.add(1, owned(1))
    store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    with pytest.raises(LocalProtocolError, match="used before"):
        store.add(2, rows)
    assert store.keys.known(rows[0].key_id)
    assert not store.keys.known(str(uuid.uuid4()))


def test_expiry_keeps_the_slaves_copy_longer_than_the_masters(store):
    mine = store.add(1, owned(1, created_at=100.0))
    theirs = store.add(2, held(1, created_at=100.0))
    assert store.keys.expire(before=110.0, now=200.0, grace=30.0) == 1
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", [theirs[0].key_id], 200.0)) == pairs(theirs)
    assert store.keys.known(mine[0].key_id)
    assert store.keys.delivered_key_ids(owner_here=True) == []


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


def test_threads_never_get_the_same_key(store):
    rows = store.add(1, owned(200))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0), range(100)))
    assert sorted(pairs(key for keys in taken for key in keys)) == sorted(pairs(rows))


DELIVER_UNTIL_KILLED = """
import os, sys
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords
from heliograph.vault.filekek import FileKek
class OsRandom:
    kind = "computational"
    def draw(self, size): return os.urandom(size)
keys = KeyRecords(Database(sys.argv[1], FileKek(sys.argv[2], OsRandom())), OsRandom())
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


class DeliveryMachine(RuleBasedStateMachine):
    """Any order of storing, acknowledging, delivering, expiring: nothing leaves twice, nothing leaves altered."""

    directory: Path

    def __init__(self):
        super().__init__()
        self.store = Store(self.directory, in_memory=True)
        self.block = 0
        self.pending = {}
        self.waiting = []
        self.held = []
        self.gone = []

    @rule(number=st.integers(1, 4))
    def store_owned(self, number):
        self.block += 1
        self.pending[self.block] = self.store.add(self.block, owned(number), acknowledged=False)

    @rule(number=st.integers(1, 4))
    def store_held(self, number):
        self.block += 1
        self.held += self.store.add(self.block, held(number))

    @rule()
    def acknowledge_the_oldest(self):
        if self.pending:
            block = min(self.pending)
            with self.store.database.transaction() as cursor:
                self.store.keys.acknowledge(cursor, 1, block)
            self.waiting += self.pending.pop(block)

    @rule(number=st.integers(1, 6))
    def master_asks(self, number):
        if number > len(self.waiting):
            with pytest.raises(InsufficientKeys):
                self.store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)
            return
        taken = self.store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)
        assert pairs(taken) == pairs(self.waiting[:number])
        self.gone += self.waiting[:number]
        del self.waiting[:number]

    @rule(data=st.data())
    def slave_asks(self, data):
        everything = self.held + self.gone
        if not everything:
            return
        wanted = data.draw(
            st.lists(st.sampled_from(everything), min_size=1, max_size=3, unique_by=lambda row: row.key_id)
        )
        ids = [row.key_id for row in wanted]
        if any(row in self.gone for row in wanted):
            # What was the master's own was allocated to another slave, and stays refused so after it is gone (5.4).
            with pytest.raises(NotPermitted if any(row.owner_here for row in wanted) else KeyNotFound):
                self.store.keys.deliver_to_slave("sae-a", "sae-b", ids, 200.0)
            return
        assert pairs(self.store.keys.deliver_to_slave("sae-a", "sae-b", ids, 200.0)) == pairs(wanted)
        self.held = [row for row in self.held if row.key_id not in ids]
        self.gone += wanted

    @invariant()
    def counts_agree(self):
        counts = self.store.keys.counts("sae-a", "sae-b")
        assert counts.deliverable == len(self.waiting)
        assert counts.pending == sum(len(rows) for rows in self.pending.values())
        assert self.store.keys.counts("sae-b", "sae-a").held == len(self.held)

    def teardown(self):
        self.store.database.close()


def test_no_order_of_events_delivers_a_key_twice(tmp_path):
    DeliveryMachine.directory = tmp_path
    machine = DeliveryMachine.TestCase
    machine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
    machine().runTest()
