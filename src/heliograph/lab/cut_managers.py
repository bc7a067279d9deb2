"""Two key managers of one site (ETSI GS QKD 020), each with its own store, and relays between them that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Self

from heliograph.errors import HeliographError, KeySupplyError
from heliograph.http.etsi020_client import Etsi020Client
from heliograph.http.etsi020_server import Etsi020Server
from heliograph.http.tls import tls13_client_tls, tls13_server_tls
from heliograph.kme.interworking import Interworking, InterworkingPeer
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.cut_parts import Findings, twice
from heliograph.lab.cutting_relay import CuttingRelay, from_port
from heliograph.site.clocks import WallClock
from heliograph.site.interworking import ForeignPair, InterworkingRunner
from heliograph.storage.database import Database
from heliograph.storage.foreign_keys import ForeignKeys
from heliograph.storage.keys import KeyRecords
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

__all__ = ["CutManagers"]

MANAGERS: Final = "key manager and key manager (ETSI GS QKD 020)"
_STOCK: Final = 4
_PAUSE_S: Final = 0.02
_ACK: Final = "/kmapi/v1/ext_keys/ack"


class _Manager:
    """One key manager; ``own`` and ``other`` are where the relays to it and to its peer listen."""

    def __init__(
        self, directory: Path, names: Sequence[str], saes: Sequence[str], urls: Sequence[str], ca: SiteCa
    ) -> None:
        (name, other), (local, foreign), (own, there) = names, saes, urls
        files = ca.issue_kme(name, ["127.0.0.1"], interworking=True).write(directory, name)
        self._tls = tls13_server_tls(*files)
        kek = FileKek.create(directory / f"{name}.kek", SystemRandomness())
        self.database = Database(directory / name / "store.db", kek)
        keys, clock = KeyRecords(self.database, SystemRandomness()), WallClock()
        store = ForeignKeys(self.database, keys)
        self.supply = Supply(keys, name, [SaePair(local, foreign, other)], Limits(), clock)
        self._client = Etsi020Client(tls13_client_tls(*files, other))
        self.server = Etsi020Server(Interworking(store, self.supply, [InterworkingPeer(other, there)], clock))
        stock = (ForeignPair(other, local, foreign, _STOCK),)
        self.runner = InterworkingRunner(
            store, self.supply, {other: there}, {other: self._client}, own + _ACK, stock, SystemRandomness(), clock
        )

    async def listen(self) -> int:
        await self.server.start("127.0.0.1", 0, self._tls)
        return self.server.port

    async def close(self) -> None:
        await self.server.close()
        await self._client.close()
        self.database.close()


class CutManagers:
    """``fetched``: keys that the SAEs of both have; ``disagreements``: unknown to the other, or other bytes there."""

    not_cut: ClassVar[dict[str, str]] = {}
    watched_by_tcp: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = [0, 0]
        self._relays = [CuttingRelay(from_port(partial(self._ports.__getitem__, at))) for at in (0, 1)]
        self.relays = {MANAGERS: self._relays}
        self.fetched = self.disagreements = 0
        self.key_ids: tuple[list[str], list[str]] = ([], [])
        self._managers: list[_Manager] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Self:
        """Listen, and fetch keys at both from now on; return when some were relayed."""
        urls = [f"https://127.0.0.1:{await relay.listen()}" for relay in self._relays]
        ca, names, saes = SiteCa.create("one protected site"), ("kme-1", "kme-2"), ("sae-1", "sae-2")
        for at in (0, 1):
            order = slice(None) if at == 0 else slice(None, None, -1)
            self._managers.append(_Manager(self._directory, names[order], saes[order], urls[order], ca))
            self._ports[at] = await self._managers[at].listen()
        self._tasks = [asyncio.create_task(manager.runner.run()) for manager in self._managers]
        self._tasks += [asyncio.create_task(self._consume(way)) for way in (0, 1)]
        await self.more()
        return self

    async def more(self, pair: str = MANAGERS) -> None:
        """Wait until keys came that were relayed after this call."""
        assert pair == MANAGERS
        goal = self.fetched + 2 * _STOCK + 1
        while self.fetched < goal:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for relay in self._relays:
            await relay.close()
        for manager in self._managers:
            with suppress(HeliographError):
                await manager.close()
        self._managers = []

    def findings(self) -> Findings:
        """Return what both SAEs have, and have not."""
        return Findings(fetched=self.fetched, duplicates=twice(self.key_ids), disagreements=self.disagreements)

    async def _consume(self, way: int) -> None:
        here, there = self._managers[way].supply, self._managers[1 - way].supply
        local, foreign = ("sae-1", "sae-2") if way == 0 else ("sae-2", "sae-1")
        while True:
            await asyncio.sleep(_PAUSE_S)
            try:
                (key,) = here.enc_keys(local, foreign, 1)
            except KeySupplyError:
                continue
            self.key_ids[way].append(key.key_id)
            try:
                (same,) = there.dec_keys(foreign, local, [key.key_id])
            except KeySupplyError:
                self.disagreements += 1
                continue
            self.disagreements += same.material != key.material
            self.fetched += 1
