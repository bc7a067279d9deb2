"""A network of three nodes in processes of their own, over links with dealt keys; relays between that can be cut."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Self

from heliograph.lab.cut_consumers import Consumers
from heliograph.lab.cut_parts import Findings, errors_in, twice
from heliograph.lab.cutting_relay import CuttingRelay, from_port
from heliograph.lab.dealt_links import DealtLink
from heliograph.lab.network import NetworkRehearsal
from heliograph.lab.network_layout import LinkAccess, NetworkPlan, lay_out
from heliograph.network.stocks import VENDOR
from heliograph.node.config import read_node
from heliograph.site.config import parse_address
from heliograph.vault.randomness import SystemRandomness

__all__ = ["CutNodes"]

NODES, LINKS = "node and node", "node and its link's key manager"
_HOST: Final = "127.0.0.1"
_STOCK: Final = 4  # keys ready at each end: few, so that new ones must cross after a cut
_DEALT: Final = 200
_PAUSE_S: Final = 0.2


class CutNodes:
    """Two end nodes with an SAE each, and one that carries between them."""

    not_cut: ClassVar[dict[str, str]] = {}
    watched_by_tcp: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, directory: Path) -> None:
        self._directory, self._stack = directory / "n", AsyncExitStack()
        self._directory.mkdir(mode=0o700)
        self._plan = NetworkPlan.around(1, threshold=1, stock=_STOCK)
        self.relays: dict[str, list[CuttingRelay]] = {NODES: [], LINKS: []}
        self._links: list[DealtLink] = []
        self._listens: dict[str, int] = {}
        self._dealing: asyncio.Task[None] | None = None
        self._consumers = Consumers([])

    @property
    def fetched(self) -> int:
        """Keys that the SAEs of both end nodes have."""
        return self._consumers.fetched

    async def start(self) -> Self:
        """Start the nodes; return when keys cross. Raises HeliographError if they do not start."""
        access: dict[tuple[str, str], LinkAccess] = {}
        for one, other in self._plan.edges:
            link = DealtLink(self._directory / f"{one}--{other}", (one, other), SystemRandomness())
            self._stack.push_async_callback(link.close)
            await link.start(_DEALT)
            self._links.append(link)
            for name, peer in (link.names, link.names[::-1]):
                port = await self._relay(LINKS, CuttingRelay(from_port(link.servers[name].port)))
                access[name, peer] = replace(link.access(name, VENDOR), url=f"https://{_HOST}:{port}")
        dials = {}
        for name, peer in access:
            relay = CuttingRelay(from_port(partial(self._listens.__getitem__, peer)))
            dials[name, peer] = f"{_HOST}:{await self._relay(NODES, relay)}"
        files = lay_out(self._directory, self._plan, access, dials)
        for name, path in files.items():
            _, self._listens[name] = parse_address(read_node(path).file.listen, "listen")
        network = NetworkRehearsal(self._directory, files)
        self._stack.push_async_callback(network.stop_all)
        self._dealing = asyncio.create_task(self._deal())
        await asyncio.gather(*(network.start(name) for name in files))
        one, other = self._plan.ends
        self._consumers = Consumers([partial(network.client, *ends) for ends in ((one, other), (other, one))])
        self._stack.push_async_callback(self._consumers.stop)
        self._consumers.start()
        await self.more(NODES)
        return self

    async def _relay(self, pair: str, relay: CuttingRelay) -> int:
        self.relays[pair].append(relay)
        self._stack.push_async_callback(relay.close)
        return await relay.listen()

    async def _deal(self) -> None:
        while True:
            for link in self._links:
                ways = link.names, link.names[::-1]
                if min(link.keys[name].stored_key_count(name, peer) for name, peer in ways) < _DEALT // 2:
                    link.deal(_DEALT // 2)
            await asyncio.sleep(_PAUSE_S)

    async def more(self, pair: str) -> None:
        """Wait until keys came in both directions that crossed after this call."""
        assert pair in self.relays
        await self._consumers.more(_STOCK + 1)

    async def close(self) -> None:
        """End everything."""
        if self._dealing is not None:
            self._dealing.cancel()
            await asyncio.gather(self._dealing, return_exceptions=True)
        await self._stack.aclose()

    def findings(self) -> Findings:
        """Return what the SAEs and the nodes' logs tell."""
        consumers = self._consumers
        return Findings(
            fetched=consumers.fetched,
            burnt=consumers.burnt,
            duplicates=twice(consumers.key_ids),
            disagreements=consumers.disagreements,
            log_errors=errors_in(self._directory / f"{name}.log" for name in self._plan.nodes),
        )
