"""Two sites whose key managers serve ETSI GS QKD 004: mirrored stores, real TLS, one-time messages over TCP."""

import contextlib
import os
import uuid

from heliograph.http.tls import client_tls, server_tls
from heliograph.kme.boundary import Boundary
from heliograph.kme.key_sizes import KeySizes
from heliograph.kme.stream_records import StreamPolicy
from heliograph.kme.streams import Streams
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.ports import free_ports
from heliograph.site.streams import StreamService
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.storage.streams import StreamRecords
from heliograph.testing.clock import ManualClock
from heliograph.transport.etsi004_client import Etsi004Client
from heliograph.transport.etsi004_server import Etsi004Server
from heliograph.transport.one_time_channel import OneTimeClient, OneTimeServer
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

PAIRS = {"a": ("sae-a", "sae-b"), "b": ("sae-b", "sae-a")}
POLICY = StreamPolicy(promised_bps=1000, chunk_bytes_max=128, timeout_ms_max=2000, ttl_s_max=3600)


class StreamSite:
    """One site."""

    def __init__(self, directory, name, port, peer_port, clock, sizes=(256,), link=""):
        self.sizes = KeySizes(256, dict.fromkeys(PAIRS.values(), sizes))
        self.name, self.directory = name, directory / name
        self.directory.mkdir()
        self.local, self.remote = PAIRS[name]
        self.port, self.peer_port, self.clock = port, peer_port, clock
        self.link = link  # the further link that carries the pair's keys, if it is not the first
        FileKek.create(self.directory / "kek", SystemRandomness())
        self.ca = SiteCa.create(f"site {name}")
        self.kme_files = self.ca.issue_kme(f"kme-{name}", ["127.0.0.1"]).write(self.directory, "kme")
        self.blocks = 0
        self.open_store()

    def open_store(self):
        kek = FileKek(self.directory / "kek", SystemRandomness())
        self.database = Database(self.directory / "store" / "site.db", kek)
        self.keys = KeyRecords(self.database, SystemRandomness())

    def add(self, rows):
        self.blocks += 1
        with self.database.transaction() as cursor:
            self.keys.add(cursor, 1, self.blocks, rows)
            self.keys.acknowledge(cursor, 1, self.blocks)

    async def start(self):
        other = "kme-b" if self.name == "a" else "kme-a"
        pairs = [SaePair(local, self.remote, other, self.link) for local in (self.local, f"{self.local}2")]
        stores = {"": None, self.link: self.keys}
        self.supply = Supply(
            stores.pop(""), f"kme-{self.name}", pairs, Limits(), self.clock, sizes=self.sizes, further=stores
        )
        records = StreamRecords(self.database)
        applications = {f"qkd://app@{end}": f"sae-{end}" for end in "ab"}
        self.streams = Streams(records, self.supply, applications, POLICY, self.clock, SystemRandomness())
        self.service = StreamService(self.streams, self.supply)
        self.channel = OneTimeClient("127.0.0.1", self.peer_port, self.service.draw, self.clock)
        self.service.connect({self.link: self.channel})
        self.peer = OneTimeServer(self.service.answer)
        await self.peer.start("127.0.0.1", self.port)
        self.server = Etsi004Server(self.service.call, Boundary())
        await self.server.start("127.0.0.1", 0, server_tls(*self.kme_files))

    async def stop(self):
        await self.server.close()
        await self.peer.close()
        await self.service.close()

    def app(self, sae=None):
        files = self.ca.issue_sae(sae or self.local).write(self.directory, f"sae-{uuid.uuid4()}")
        return Etsi004Client("127.0.0.1", self.server.port, client_tls(*files, f"kme-{self.name}"))

    def stored(self, size_bytes=None):
        return self.keys.stored_key_count(self.local, self.remote, size_bytes)


@contextlib.asynccontextmanager
async def two_sites(directory, keys=60, sizes=(256,), link=""):
    """Give (a, b, clock), serving; ``keys`` keys of each of ``sizes``, in bits, are owned by each.

    ``link``: which further link of a's it is.
    """
    clock = ManualClock(1000.0)
    ports = free_ports(2)
    a = StreamSite(directory, "a", ports[0], ports[1], clock, sizes, link)
    b = StreamSite(directory, "b", ports[1], ports[0], clock, sizes)
    for bits in sizes:
        stock(a, b, keys, bits // 8)
    for site in (a, b):
        await site.start()
    try:
        yield a, b, clock
    finally:
        for site in (a, b):
            await site.stop()
            site.database.close()


def stock(a, b, keys, size_bytes=32):
    """Give both sites the same committed keys."""
    made = [
        (str(uuid.uuid4()), pair, os.urandom(size_bytes), pair[0] == a.local)
        for pair in PAIRS.values()
        for _ in range(keys)
    ]
    for site in (a, b):
        site.add(
            [
                NewKey(key_id, *pair, owner_here=of_a == (site.name == "a"), material=material, created_at=1000.0)
                for key_id, pair, material, of_a in made
            ]
        )
