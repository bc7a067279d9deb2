"""A running network node: its links, what it carries for others, and a key manager for its own SAEs, in one process."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog

from heliograph.errors import HeliographError, RemoteProtocolError
from heliograph.establishment.messages import PEER_KEY_BYTES
from heliograph.http.callers import CertificateCallers
from heliograph.http.client import Etsi014Client
from heliograph.http.server import KmeServer
from heliograph.http.tls import client_tls, server_tls
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.network.endtoend import EndToEnd
from heliograph.network.stocks import cost_per_bit
from heliograph.network.topology import link_name
from heliograph.node.config import LinkEntry, NodeConfig
from heliograph.node.links import Link
from heliograph.node.live_settings import node_reloads
from heliograph.node.origin import KEY_BYTES, Origin
from heliograph.node.relay import Neighbour, NodeParts, Relay
from heliograph.node.status import LinkUse, NodeStatus, PairStatus
from heliograph.ports import KeyEstablishment
from heliograph.site.bugs import place
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.config import parse_address
from heliograph.site.kek import open_kek
from heliograph.site.renewing import renews
from heliograph.site.status_socket import serve_status
from heliograph.site.store import open_store
from heliograph.site.sweeper import sweep
from heliograph.storage.database import Database
from heliograph.storage.group_commit import run_group
from heliograph.storage.keys import KeyRecords
from heliograph.storage.relayed_keys import HELD_MAX, RelayedKeys
from heliograph.transport.hop_channel import HopClient
from heliograph.transport.one_time_channel import OneTimeServer
from heliograph.vault.exchanges import exchange_methods
from heliograph.vault.owned_file import read_exactly
from heliograph.vault.randomness import SystemRandomness

__all__ = ["Node", "run_node"]

log = structlog.get_logger("heliograph.network")


async def run_node(
    config: NodeConfig,
    ready: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
    reload: asyncio.Event,
    log_level: Callable[[str | None], None] = lambda _: None,
) -> None:
    """Run until ``stop`` is set; ``ready`` is awaited when the node listens; each ``reload`` reads NODE.toml anew.

    Raises ConfigurationError, StoreUnavailable or RollbackDetected with one line for the operator.
    """
    async with AsyncExitStack() as stack:
        node = await Node.open(config, stack)
        node.reloads.add(lambda fresh: fresh.file.log_level, log_level)
        reloading = asyncio.create_task(node.reloads.watch(reload))
        stack.push_async_callback(_end, reloading)
        work = asyncio.create_task(node.origin.run())
        stack.push_async_callback(_end, work)
        stack.push_async_callback(node.reloads.close)  # before the door closes: no reload opens it again
        await ready()
        waiting = asyncio.create_task(stop.wait())
        stack.push_async_callback(_end, waiting)
        done, _ = await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if work in done:
            work.result()


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Node:
    """One node. ``parts``: what relay and origin share; ``relay``: answers neighbours; ``origin``: keeps the stocks."""

    def __init__(self, config: NodeConfig, parts: NodeParts, supply: Supply, keys: KeyRecords) -> None:
        self.parts, self.supply = parts, supply
        self.relay = Relay(parts)
        self.origin = Origin(parts, supply, SystemRandomness(), SystemRandomness())
        self.kme_port = 0
        self.reloads = node_reloads(config)
        self._config, self._keys = config, keys

    @classmethod
    async def open(cls, config: NodeConfig, stack: AsyncExitStack) -> Node:
        """Open everything in order; what was opened is closed in the reverse order."""
        file = config.file
        # What is only read comes first: a refusal then leaves no trace on the disk.
        tls = _kme_tls(config)
        links = {entry.peer: _open_link(config, entry) for entry in file.links}
        for link in links.values():
            stack.push_async_callback(link.close)
        ends = _ends(config)
        kek = open_kek(config)
        database = Database(config.path(file.store), kek)
        stack.callback(database.close)
        opened = open_store(database, config.path(file.anchor), SystemRandomness())
        store = ThreadPoolExecutor(1, "store")
        stack.callback(store.shutdown)
        monotonic, wall = MonotonicClock(), WallClock()
        neighbours = {entry.peer: Neighbour(links[entry.peer], _client(entry, monotonic)) for entry in file.links}
        parts = NodeParts(
            file.name,
            config.topology,
            neighbours,
            config.routes,
            ends,
            config.carries,
            _exchanges(config),
            RelayedKeys(database, opened.keys),
            store,
            wall,
        )
        node = cls(config, parts, _supply(config, opened.keys), opened.keys)
        node._follow_file(opened.keys)
        stack.push_async_callback(_end, asyncio.create_task(sweep(database, store)))
        await node._listen(stack, database, tls)
        return node

    async def _listen(self, stack: AsyncExitStack, database: Database, tls: ssl.SSLContext) -> None:
        file = self._config.file
        door = OneTimeServer(self._answer, _dialled(self._config))
        await door.start(*parse_address(file.listen, "listen"))
        stack.push_async_callback(door.close)
        self.reloads.add(_dialled, door.expect)
        kme = KmeServer(self.supply)
        kme.commit_together(partial(run_group, database), database)
        await kme.start(*parse_address(file.kme.listen, "[kme] listen"), tls)
        self.kme_port = kme.port
        self.reloads.prepare(renews(kme, _kme_tls))
        self.reloads.add(lambda _: None, lambda _: kme.admit(CertificateCallers(), ()))
        stack.push_async_callback(kme.close)
        status = await serve_status(self._config.path(file.status), self.status)
        stack.callback(self._config.path(file.status).unlink, missing_ok=True)
        stack.callback(status.close)

    def _follow_file(self, keys: KeyRecords) -> None:
        """Take part in each reload, before the doors do."""

        def routes(now: NodeConfig) -> Callable[[], None]:
            made = now.routes, _ends(now), _exchanges(now), now.carries

            def follow() -> None:
                self.origin.follow(made[0])
                self.parts.follow(*made)

            return follow

        def links(now: NodeConfig) -> list[Callable[[], None]]:
            found: list[Callable[[], None]] = []
            for entry in now.file.links:
                neighbour = self.parts.neighbours[entry.peer]
                where = parse_address(entry.dial, f"[[links]] {entry.peer}: dial")
                found.append(partial(neighbour.client.move, *where))
                if (tls := _link_tls(now, entry)) is not None:
                    found.append(partial(neighbour.link.renew, tls))
            return found

        self.reloads.add(lambda now: _supply(now, keys), self.supply.follow)
        self.reloads.add(routes, lambda follow: follow())
        self.reloads.add(links, lambda changes: [change() for change in changes])

    async def _answer(self, data: bytes, proved: Callable[[], None]) -> bytes:
        try:
            return await self.relay.answer(data, proved)
        except HeliographError:
            raise
        except Exception as why:  # noqa: BLE001  - a bug costs its message; its text might quote key material
            log.error("internal error", kind=type(why).__name__, at=place(why))  # noqa: TRY400
            raise RemoteProtocolError("internal error") from None

    async def status(self) -> NodeStatus:
        """Return the node's public figures."""
        for neighbour in self.parts.neighbours.values():
            try:
                await neighbour.link.look()
            except HeliographError:
                neighbour.link.stock = -1
        return await self.parts.in_store(self._figures)

    def _figures(self) -> NodeStatus:
        drawn, relayed = self.parts.relayed.drawn_bits(), self.parts.relayed
        links = tuple(
            LinkUse(n.link.name, peer, n.link.assurance, n.link.stock, drawn.get(n.link.name, 0))
            for peer, n in self.parts.neighbours.items()
        )
        pairs = []
        for route in self.parts.routes:
            pair = route.local_sae, route.remote_sae
            delivered, paid = relayed.delivered_bits(pair), relayed.paid_bits(pair)
            counts = self._keys.counts(*pair)
            pairs.append(
                PairStatus(
                    *pair,
                    route.node,
                    f"{route.threshold} of {route.shares}",
                    route.layer,
                    counts.deliverable,
                    self._keys.counts(*pair[::-1]).held,
                    delivered,
                    paid,
                    cost_per_bit(paid, delivered),
                    self.origin.books[pair].report(),
                    self.origin.last.get(pair, ""),
                )
            )
        suspected = dict(self.relay.suspected)
        for path, times in self.origin.suspected.items():
            suspected[path] = suspected.get(path, 0) + times
        to_masters, to_slaves = self._keys.delivered_counts()
        return NodeStatus(
            self.parts.name,
            os.getpid(),
            links,
            tuple(pairs),
            self.relay.carried,
            suspected,
            to_masters,
            to_slaves,
            self.reloads.status(),
        )


def _client(entry: LinkEntry, clock: MonotonicClock) -> HopClient:
    return HopClient(*parse_address(entry.dial, f"[[links]] {entry.peer}: dial"), clock)


def _dialled(config: NodeConfig) -> set[str]:
    return {parse_address(entry.dial, "dial")[0] for entry in config.file.links}


def _kme_tls(config: NodeConfig) -> ssl.SSLContext:
    kme, path = config.file.kme, config.path
    return server_tls(path(kme.certificate), path(kme.key), path(kme.ca))


def _ends(config: NodeConfig) -> dict[tuple[str, str], EndToEnd]:
    return {
        (pair.local, pair.remote): EndToEnd.derive(
            read_exactly(config.path(pair.peer_key), PEER_KEY_BYTES, "[[pairs]] peer_key")
        )
        for pair in config.file.pairs
        if pair.peer_key is not None
    }


def _exchanges(config: NodeConfig) -> Mapping[str, KeyEstablishment]:
    return exchange_methods(tuple({route.layer for route in config.routes if route.layer}), SystemRandomness())


def _supply(config: NodeConfig, keys: KeyRecords) -> Supply:
    pairs = [SaePair(pair.local, pair.remote, pair.kme) for pair in config.file.pairs]
    limits = Limits(8 * KEY_BYTES, HELD_MAX, config.file.kme.max_key_per_request)
    return Supply(keys, config.file.kme.id, pairs, limits, WallClock())


def _link_tls(config: NodeConfig, entry: LinkEntry) -> ssl.SSLContext | None:
    if entry.certificate is None or entry.key is None or entry.ca is None:  # over a socket
        return None
    return client_tls(config.path(entry.certificate), config.path(entry.key), config.path(entry.ca), entry.kme)


def _open_link(config: NodeConfig, entry: LinkEntry) -> Link:
    tls = _link_tls(config, entry)
    if entry.socket is not None:
        client = Etsi014Client.over_socket(config.path(entry.socket), entry.sae, entry.peer_sae, size_bits=None)
    else:
        assert entry.url is not None  # _check_link, and the same of the files
        assert tls is not None
        client = Etsi014Client(entry.url, tls, entry.sae, entry.peer_sae, size_bits=None)
    name = link_name(config.file.name, entry.peer)
    return Link(name, entry.peer, client, (entry.sae, entry.peer_sae), entry.assurance)
