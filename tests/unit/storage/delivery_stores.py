"""The two stores of keys behind one face for tests: a site's own file, and a PostgreSQL server with front ends."""

import os
import uuid

from heliograph.storage.database import Database
from heliograph.storage.front_end import FrontEnd
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.storage.outbox import Outbox
from heliograph.storage.pg_keys import PgKeys
from heliograph.storage.pg_schema import check_schema, create_schema
from heliograph.storage.pg_server import PgServer, ServerEntry
from heliograph.storage.store_seal import StoreSeal
from heliograph.testing.anchor import MemoryAnchor
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

METADATA = '{"protocol": "test"}'


def new(master, slave, created_at, *, here, shares=(), size=32):
    return NewKey(str(uuid.uuid4()), master, slave, here, os.urandom(size), created_at, shares)


def owned(number, created_at=100.0, size=32):
    return [new("sae-a", "sae-b", created_at, here=True, size=size) for _ in range(number)]


def held(number, created_at=100.0, master="sae-b", slave="sae-a"):
    return [new(master, slave, created_at, here=False) for _ in range(number)]


def pairs(keys):
    return [(key.key_id, key.material) for key in keys]


class SqliteStore:
    """Keys in the site's own file."""

    def __init__(self, directory):
        self.path = directory / "site" / "store.db"
        self.kek = FileKek.create(directory / "kek", SystemRandomness())
        self.open()

    def open(self):
        self.database = Database(self.path, self.kek)
        seal = StoreSeal(self.database, MemoryAnchor())
        self.keys = KeyRecords(self.database, SystemRandomness(), seal)

    def close(self):
        self.database.close()

    def reopen(self):
        self.close()
        self.open()

    def add(self, block, rows, *, acknowledged=True, epoch=1):
        with self.database.transaction() as cursor:
            self.keys.add(cursor, epoch, block, rows, METADATA)
        if acknowledged:
            self.acknowledge(block, epoch=epoch)
        return rows

    def acknowledge(self, block, *, epoch=1):
        with self.database.transaction() as cursor:
            self.keys.acknowledge(cursor, epoch, block)

    def discard(self, block):
        with self.database.transaction() as cursor:
            return self.keys.discard(cursor, 1, block, 200.0)

    def alter(self, key_id):
        with self.database.transaction() as cursor:
            chunk, place, sealed = cursor.execute(
                "SELECT chunk, place, ciphertext FROM key_records WHERE key_id = ?", (key_id,)
            ).fetchone()
            with cursor.connection.blobopen("key_ciphertexts", "ciphertexts", chunk) as blob:
                blob[place * len(sealed)] ^= 1

    def cut_names(self, block):
        """Leave one byte of the key_IDs of a block's first chunk."""
        with self.database.transaction() as cursor:
            cursor.execute(
                "UPDATE key_chunks SET key_ids = substr(key_ids, 1, 1) "
                "WHERE chunk = (SELECT min(chunk) FROM key_chunks JOIN key_segments USING (segment) WHERE block = ?)",
                (block,),
            )

    def alter_block(self, block):
        with self.database.transaction() as cursor:
            cursor.execute("UPDATE key_segments SET sealed_key = zeroblob(61) WHERE block = ?", (block,))

    def group(self):
        return self.database


class Front:
    """One front end of a ``PostgresStore``: its directory, its session, its keys."""

    def __init__(self, store, name, server=None):
        self.name = name
        directory = store.directory / name
        self.database = Database(directory / "store" / "front.db", store.kek)
        try:
            self.front_end = FrontEnd(
                name, store.names, self.database, FileAnchor(directory / "anchor"), store.entry.standby
            )
        except BaseException:
            self.database.close()
            raise
        entry = store.entry if server is None else ServerEntry(server.conninfo(), store.entry.standby)
        self.server = PgServer(entry, self.front_end.greet)
        self.keys = PgKeys(self.server, self.front_end)

    def attend(self):
        """Say once, in this run of the server, that this front end is not ahead of it."""
        with self.server.transaction():
            pass

    def close(self):
        self.server.close()
        self.database.close()


class PostgresStore:
    """Keys that a link's file hands over to the delivery server; ``keys`` are those of the first front end."""

    def __init__(self, directory, server, names=("fe-1",), standby=None):
        self.directory = directory
        self.names = names
        self.entry = ServerEntry(server.conninfo(), standby)
        self.kek = FileKek.create(directory / "kek", SystemRandomness())
        self.open_link()
        create_schema(self.link, self.kek)
        self.fronts = {}
        for name in names:
            self.open(name)

    def open_link(self):
        self.link = PgServer(self.entry, lambda cursor: check_or_none(cursor, self.kek))
        self.database = Database(self.directory / "site" / "store.db", self.kek)
        self.own = KeyRecords(self.database, SystemRandomness())
        self.outbox = Outbox(self.database, self.own, self.link, self.names, lambda: 200.0)

    def open(self, name, server=None):
        self.fronts[name] = Front(self, name, server)
        return self.fronts[name]

    @property
    def keys(self):
        return self.fronts[self.names[0]].keys

    def close_fronts(self):
        for front in self.fronts.values():
            front.close()
        self.fronts = {}

    def close_link(self):
        self.link.close()
        self.database.close()

    def close(self):
        self.close_fronts()
        self.close_link()

    def reopen(self):
        self.close()
        self.open_link()
        for name in self.names:
            self.open(name)

    def stored(self, block, rows, *, acknowledged=True, epoch=1):
        """Store a block in the link's file, where it waits for ``push``."""
        with self.database.transaction() as cursor:
            self.outbox.add(cursor, epoch, block, rows, METADATA)
            if acknowledged:
                self.outbox.acknowledge(cursor, epoch, block)
        return rows

    def add(self, block, rows, *, acknowledged=True, epoch=1):
        self.stored(block, rows, acknowledged=acknowledged, epoch=epoch)
        self.outbox.push()
        return rows

    def acknowledge(self, block, *, epoch=1):
        with self.database.transaction() as cursor:
            self.outbox.acknowledge(cursor, epoch, block)
        self.outbox.push()

    def discard(self, block):
        return self.keys.discard(1, block, 200.0)

    def alter(self, key_id):
        with self.link.transaction() as cursor:
            cursor.execute("UPDATE key_records SET ciphertext = %s WHERE key_id = %s", (bytes(48), key_id))

    def cut_names(self, block):
        """Leave one character of the key_IDs of a block, and of each its place."""
        with self.link.transaction() as cursor:
            cursor.execute(
                "UPDATE key_records SET key_id = substr(key_id, 1, 1) || position WHERE segment = "
                "(SELECT segment FROM key_segments WHERE block = %s)",
                (block,),
            )

    def alter_block(self, block):
        """Alter the block's key where it was collected, or is next: in the first front end's file."""
        with self.link.transaction() as cursor:
            cursor.execute("TRUNCATE segment_keys")  # as after a crash of the server
        with self.fronts[self.names[0]].database.transaction() as own:
            own.execute("UPDATE front_segments SET sealed_key = zeroblob(61) WHERE block = ?", (block,))

    def group(self):
        return self.fronts[self.names[0]].server


def check_or_none(cursor, kek):
    found = cursor.execute("SELECT to_regclass('heliograph.store')").fetchone()
    if found[0] is not None:
        check_schema(cursor, kek)
