"""Two key managers of one protected site, each with its own store, over real TLS 1.3 (ETSI GS QKD 020)."""

import contextlib
import ssl
from dataclasses import dataclass

from heliograph.http.etsi020_client import Etsi020Client
from heliograph.http.etsi020_server import Etsi020Server
from heliograph.http.tls import tls13_client_tls, tls13_server_tls
from heliograph.kme.interworking import Interworking, InterworkingPeer
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.ports import free_ports
from heliograph.site.interworking import ForeignPair, InterworkingRunner
from heliograph.storage.database import Database
from heliograph.storage.foreign_keys import ForeignKeys
from heliograph.storage.keys import KeyRecords
from heliograph.testing.clock import ManualClock
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

ACK = "/kmapi/v1/ext_keys/ack"


@dataclass
class Manager:
    """One key manager. ``local``: its SAE; ``foreign``: the other's."""

    kme: str
    local: str
    foreign: str
    files: tuple
    port: int

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def open(self, directory, other, clock, *, synchronous=False, stock=0):
        kek = directory / f"{self.kme}.kek"
        if not kek.exists():
            FileKek.create(kek, SystemRandomness())
        self.database = Database(directory / self.kme / "store.db", FileKek(kek, SystemRandomness()))
        self.keys = KeyRecords(self.database, SystemRandomness())
        self.store = ForeignKeys(self.database, self.keys)
        pair = SaePair(self.local, self.foreign, other.kme)
        self.supply = Supply(self.keys, self.kme, [pair], Limits(), clock)
        peer = InterworkingPeer(other.kme, other.url)
        self.interworking = Interworking(self.store, self.supply, [peer], clock, synchronous=synchronous)
        self.client = Etsi020Client(tls13_client_tls(*self.files, other.kme))
        self.runner = InterworkingRunner(
            self.store,
            self.supply,
            {other.kme: other.url},
            {other.kme: self.client},
            f"{self.url}{ACK}",
            (ForeignPair(other.kme, self.local, self.foreign, stock),),
            SystemRandomness(),
            clock,
        )

    async def listen(self):
        self.server = Etsi020Server(self.interworking)
        await self.server.start("127.0.0.1", self.port, tls13_server_tls(*self.files))

    def states(self):
        """Return the state of each key, or of its one leg."""
        with self.database.reading() as cursor:
            keys = dict(cursor.execute("SELECT key_id, state FROM foreign_keys").fetchall())
            return {**keys, **dict(cursor.execute("SELECT key_id, state FROM foreign_legs").fetchall())}


@contextlib.asynccontextmanager
async def two_key_managers(directory, *, stock=4, synchronous=False):
    """Give (sender, receiver, clock), both listening; only the sender has a stock to keep."""
    (directory / "pki").mkdir(parents=True)
    ca = SiteCa.create("one protected site")
    ports = free_ports(2)
    clock = ManualClock(1000.0)
    one, two = (
        Manager(
            kme,
            local,
            foreign,
            ca.issue_kme(kme, ["127.0.0.1"], interworking=True).write(directory / "pki", kme),
            port,
        )
        for kme, local, foreign, port in (("kme-1", "sae-1", "sae-2", ports[0]), ("kme-2", "sae-2", "sae-1", ports[1]))
    )
    one.ca = ca
    one.open(directory, two, clock, stock=stock)
    two.open(directory, one, clock, synchronous=synchronous)
    try:
        for manager in (one, two):
            await manager.listen()
        yield one, two, clock
    finally:
        for manager in (one, two):
            await manager.server.close()
            await manager.runner.close()
            manager.database.close()


def stranger_tls(directory, ca, kme):
    """Return a client context of a KME that the site's authority certified and nobody declared."""
    files = ca.issue_kme(kme, ["127.0.0.1"], interworking=True).write(directory / "pki", kme)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(files[0], files[1])
    context.load_verify_locations(files[2])
    return context


def tls_of(manager):
    """Return a client context that shows this key manager's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(manager.files[0], manager.files[1])
    context.load_verify_locations(manager.files[2])
    return context
