"""Three key managers of one protected site, over real TLS 1.3: keys for several targets, direct and passed on."""

import contextlib
from dataclasses import dataclass

from two_key_managers import ACK

from heliograph.errors import HeliographError
from heliograph.http.etsi020_client import Etsi020Client
from heliograph.http.etsi020_server import Etsi020Server
from heliograph.http.tls import tls13_client_tls, tls13_server_tls
from heliograph.kme.foreign_groups import ForeignGroup
from heliograph.kme.groups import SaeGroup
from heliograph.kme.interworking import Interworking, InterworkingPeer
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.ports import free_ports
from heliograph.site.interworking import InterworkingRunner
from heliograph.storage.database import Database
from heliograph.storage.foreign_keys import ForeignKeys
from heliograph.storage.keys import KeyRecords
from heliograph.testing.clock import ManualClock
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

KMES = ("kme-1", "kme-2", "kme-3")
# The first key manager reaches both others, and one target is an SAE of its own.
FAN = {
    "kme-1": ForeignGroup(
        "sae-1", ("sae-1b", "sae-2", "sae-2b", "sae-3"), {"sae-2": "kme-2", "sae-2b": "kme-2", "sae-3": "kme-3"}, 2
    ),
    "kme-2": ForeignGroup("sae-1", ("sae-2", "sae-2b"), {"sae-1": "kme-1"}),
    "kme-3": ForeignGroup("sae-1", ("sae-3",), {"sae-1": "kme-1"}),
}
# The first reaches the third through the second, which has a target too.
CHAIN = {
    "kme-1": ForeignGroup("sae-1", ("sae-2", "sae-3"), {"sae-2": "kme-2", "sae-3": "kme-2"}, 2),
    "kme-2": ForeignGroup("sae-1", ("sae-2", "sae-3"), {"sae-1": "kme-1", "sae-3": "kme-3"}),
    "kme-3": ForeignGroup("sae-1", ("sae-3",), {"sae-1": "kme-2"}),
}


@dataclass
class Manager:
    """One key manager with its one group."""

    kme: str
    files: tuple
    port: int
    group: ForeignGroup

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def open(self, directory, others, clock, *, synchronous=False, said=None):
        kek = directory / f"{self.kme}.kek"
        if not kek.exists():
            FileKek.create(kek, SystemRandomness())
        self.database = Database(directory / self.kme / "store.db", FileKek(kek, SystemRandomness()))
        self.keys = KeyRecords(self.database, SystemRandomness())
        self.store = ForeignKeys(self.database, self.keys)
        here, behind = self.group.here, self.group.behind
        ends = [(self.group.master, slave) for slave in self.group.slaves]
        pairs = [
            SaePair(a, b, behind[b])
            for master, slave in ends
            for a, b in ((master, slave), (slave, master))
            if a in here and b in behind
        ]
        groups = [SaeGroup(self.group.master, self.group.slaves, frozenset(here))] if len(ends) > 1 and here else []
        self.supply = Supply(self.keys, self.kme, pairs, Limits(), clock, groups=groups)
        peers = [InterworkingPeer(other.kme, other.url) for other in others]
        self.interworking = Interworking(
            self.store, self.supply, peers, clock, synchronous=synchronous, groups=[self.group], pairs=()
        )
        self.clients = {other.kme: Etsi020Client(tls13_client_tls(*self.files, other.kme)) for other in others}
        self.runner = InterworkingRunner(
            self.store,
            self.supply,
            {other.kme: other.url for other in others},
            self.clients,
            f"{self.url}{ACK}",
            (),
            SystemRandomness(),
            clock,
            (self.group,),
            said,
        )

    async def listen(self):
        self.server = Etsi020Server(self.interworking)
        await self.server.start("127.0.0.1", self.port, tls13_server_tls(*self.files))

    async def stop(self):
        await self.server.close()
        await self.runner.close()
        self.database.close()

    def states(self):
        with self.database.reading() as cursor:
            return dict(cursor.execute("SELECT key_id, state FROM foreign_keys").fetchall())

    def legs(self):
        """Return the states of the legs, by key and peer."""
        with self.database.reading() as cursor:
            rows = cursor.execute("SELECT key_id, peer, state FROM foreign_legs").fetchall()
        return {(key_id, peer): state for key_id, peer, state in rows}

    def fetch(self, sae, key_id):
        """Return what an SAE of this key manager gets for a key_ID; an error's name if it gets none."""
        try:
            (key,) = self.supply.dec_keys(sae, "sae-1", [key_id])
        except HeliographError as why:
            return type(why).__name__
        return key.material


@contextlib.asynccontextmanager
async def three_key_managers(directory, groups=None, **more):
    """Give (managers, clock), all listening; ``groups``: one for each. What is owed is done by their runners' ticks."""
    (directory / "pki").mkdir(parents=True)
    ca, clock = SiteCa.create("one protected site"), ManualClock(1000.0)
    ports = free_ports(3)
    managers = [
        Manager(
            kme,
            ca.issue_kme(kme, ["127.0.0.1"], interworking=True).write(directory / "pki", kme),
            port,
            (groups or FAN)[kme],
        )
        for kme, port in zip(KMES, ports, strict=True)
    ]
    for manager in managers:
        manager.open(directory, [other for other in managers if other is not manager], clock, **more)
    try:
        for manager in managers:
            await manager.listen()
        yield managers, clock
    finally:
        for manager in managers:
            await manager.stop()
