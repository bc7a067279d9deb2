"""A link whose keys a dealer gives to both ends, each behind a key manager that speaks ETSI GS QKD 014.

It stands for a vendor's device in rehearsals and tests: no light, no secrecy, real keys, stores, TLS and requests.
"""

from __future__ import annotations

import json
import uuid
from functools import partial
from pathlib import Path

from heliograph.http.server import KmeServer
from heliograph.http.tls import server_tls
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.network_layout import LinkAccess
from heliograph.ports import RandomSource
from heliograph.site.clocks import WallClock
from heliograph.storage.database import Database
from heliograph.storage.group_commit import run_group
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek

__all__ = ["DealtLink"]

_HOST = "127.0.0.1"


class DealtLink:
    """The link of two nodes; ``names``: theirs. ``assurance``: what its keys say of themselves, empty for nothing."""

    def __init__(
        self,
        directory: Path,
        names: tuple[str, str],
        randomness: RandomSource,
        *,
        assurance: str = "",
        key_bytes: int = 32,
    ) -> None:
        self.names = names
        self._directory, self._randomness = directory, randomness
        self._about = json.dumps({"protocol": "dealt", "assurance": assurance} if assurance else {"protocol": "dealt"})
        self._key_bytes = key_bytes
        self._blocks = 0
        self._databases: dict[str, Database] = {}
        self.keys: dict[str, KeyRecords] = {}
        self.servers: dict[str, KmeServer] = {}
        self._files: dict[str, tuple[Path, Path, Path]] = {}

    async def start(self, number: int) -> None:
        """Start both key managers with ``number`` keys for each direction. Raises ConfigurationError."""
        for name in self.names:
            where = self._directory / name
            where.mkdir(mode=0o700, parents=True)
            authority = SiteCa.create(f"{self._kme(name)} authority")
            kme = authority.issue_kme(self._kme(name), [_HOST]).write(where, "kme")
            self._files[name] = authority.issue_sae(name).write(where, "sae")
            database = Database(where / "store" / "kme.db", FileKek.create(where / "kek", self._randomness))
            self._databases[name] = database
            self.keys[name] = KeyRecords(database, self._randomness)
            limits = Limits(8 * self._key_bytes)
            pair = SaePair(name, self._other(name), self._kme(self._other(name)))
            server = KmeServer(Supply(self.keys[name], self._kme(name), [pair], limits, WallClock()))
            server.commit_together(partial(run_group, database), database)
            await server.start(_HOST, 0, server_tls(*kme))
            self.servers[name] = server
        self.deal(number)

    def deal(self, number: int) -> None:
        """Give both ends ``number`` more keys for each direction."""
        self._blocks += 1
        now = WallClock().now()
        made = [
            (str(uuid.UUID(bytes=self._randomness.draw(16), version=4)), master, self._randomness.draw(self._key_bytes))
            for master in self.names
            for _ in range(number)
        ]
        for name in self.names:
            rows = [
                NewKey(key_id, master, self._other(master), master == name, material, now)
                for key_id, master, material in made
            ]
            with self._databases[name].transaction() as cursor:
                self.keys[name].add(cursor, 1, self._blocks, rows, self._about)
                self.keys[name].acknowledge(cursor, 1, self._blocks)

    def access(self, name: str, assurance: str) -> LinkAccess:
        """Return how the node ``name`` reaches its end. ``assurance``: what it demands."""
        certificate, key, ca = self._files[name]
        url = f"https://{_HOST}:{self.servers[name].port}"
        return LinkAccess(url, self._kme(name), (certificate, key, ca), assurance)

    async def close(self) -> None:
        """Stop both key managers."""
        for server in self.servers.values():
            await server.close()
        for database in self._databases.values():
            database.close()

    def _other(self, name: str) -> str:
        return self.names[1] if name == self.names[0] else self.names[0]

    def _kme(self, name: str) -> str:
        return f"kme-{name}-to-{self._other(name)}"
