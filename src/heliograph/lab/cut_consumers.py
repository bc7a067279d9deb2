"""SAEs at both sites that fetch keys all the time, whatever is cut; what they got and what they did not."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from heliograph.errors import KeyNotFound, KeySupplyError
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.site.config import read_site

__all__ = ["Consumers", "sae_of_site"]

_PAUSE_S = 0.02


def sae_of_site(path: Path, port: int) -> Etsi014Client:
    """Return the client of the SAE of a site's agent; ``port``: where its key manager is reached."""
    config = read_site(path)
    kme, agent = config.file.kme, config.file.agent
    assert agent is not None
    assert agent.certificate is not None
    assert agent.key is not None
    tls = client_tls(config.path(agent.certificate), config.path(agent.key), config.path(kme.ca), kme.id)
    return Etsi014Client(f"https://127.0.0.1:{port}", tls, agent.sae, agent.peer_sae)


class Consumers:
    """An SAE at each end, master for one direction and slave for the other. ``saes``: each makes one's client.

    ``fetched``: keys that both have; ``burnt``: whose answer to the slave did not come, and which were gone when it
    asked again; ``disagreements``: other bytes at the other site, or unknown there although never asked for.
    """

    def __init__(self, saes: Sequence[Callable[[], Etsi014Client]]) -> None:
        self._saes = saes
        self.key_ids: tuple[list[str], ...] = ([], [], [], [])  # master and slave of each direction
        self.digests: set[bytes] = set()
        self._each = [0, 0]
        self.burnt = self.disagreements = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def fetched(self) -> int:
        """Keys that master and slave have."""
        return sum(self._each)

    def start(self) -> None:
        """Fetch from now on."""
        self._tasks = [asyncio.create_task(self._consume(way)) for way in (0, 1)]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        for found in await asyncio.gather(*self._tasks, return_exceptions=True):
            if not isinstance(found, asyncio.CancelledError | None):
                raise found
        self._tasks = []

    async def more(self, number: int = 1) -> None:
        """Wait until both directions have ``number`` keys more than now."""
        goal = [count + number for count in self._each]
        while any(count < wanted for count, wanted in zip(self._each, goal, strict=True)):
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(_PAUSE_S)

    async def _consume(self, way: int) -> None:
        async with self._saes[way]() as master, self._saes[1 - way]() as slave:
            while True:
                try:
                    key = await master.get_key()
                except KeySupplyError:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                self.key_ids[2 * way].append(key.key_id)
                digest = hashlib.sha256(key.material).digest()
                self.disagreements += digest in self.digests  # one key under two names
                self.digests.add(digest)
                await self._fetch(way, slave, key.key_id, digest)

    async def _fetch(self, way: int, slave: Etsi014Client, key_id: str, digest: bytes) -> None:
        asked_before = False
        while True:
            try:
                key = await slave.get_key_with_id(key_id)
            except KeyNotFound:
                # Gone after a request whose answer a cut swallowed: burnt, never repeated.
                self.burnt += asked_before
                self.disagreements += not asked_before
                return
            except KeySupplyError:
                asked_before = True
                await asyncio.sleep(_PAUSE_S)
                continue
            self.key_ids[2 * way + 1].append(key_id)
            self.disagreements += hashlib.sha256(key.material).digest() != digest
            self._each[way] += 1
            return
