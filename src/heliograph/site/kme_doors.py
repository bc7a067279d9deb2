"""The doors of a site's key manager: one supply, and every way that the site file opens to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from heliograph.errors import ConfigurationError
from heliograph.http.callers import CertificateCallers, PskCallers, UserCallers
from heliograph.http.etsi020_client import Etsi020Client
from heliograph.http.etsi020_server import Etsi020Server
from heliograph.http.server import KmeServer
from heliograph.http.skip_server import SkipServer
from heliograph.http.tls import server_tls, skip_server_tls, tls13_client_tls, tls13_server_tls
from heliograph.kme.interworking import Interworking
from heliograph.kme.streams import Streams
from heliograph.kme.supply import SaePair, Supply
from heliograph.site.boundary_entry import SiteBoundary
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.config import SiteConfig, parse_address
from heliograph.site.interworking import ForeignPair, InterworkingRunner
from heliograph.site.protocol_entries import Etsi004Entry, Etsi020Entry, SkipEntry
from heliograph.site.renewal import Renewals
from heliograph.site.store import SiteStore
from heliograph.site.streams import StreamService
from heliograph.storage.foreign_keys import ForeignKeys
from heliograph.storage.group_commit import run_group
from heliograph.storage.streams import StreamRecords
from heliograph.transport.etsi004_server import Etsi004Server
from heliograph.transport.one_time_channel import OneTimeClient, OneTimeServer
from heliograph.vault.preshared_key import read_preshared_key
from heliograph.vault.randomness import SystemRandomness

__all__ = ["foreign_pairs", "kme_tls", "open_doors"]


def foreign_pairs(config: SiteConfig) -> list[SaePair]:
    """Return the pairs that an SAE of this site has with one behind another key manager (ETSI GS QKD 020)."""
    entry = config.file.etsi020
    peers = entry.peers if entry else []
    return [SaePair(pair.local, pair.foreign, peer.kme) for peer in peers for pair in peer.pairs]


def kme_tls(config: SiteConfig) -> ssl.SSLContext:
    """Return the key manager's own context. Raises ConfigurationError."""
    kme, path = config.file.kme, config.path
    return server_tls(path(kme.certificate), path(kme.key), path(kme.ca))


def _skip_tls(config: SiteConfig) -> ssl.SSLContext:
    kme, path = config.file.kme, config.path
    return skip_server_tls(path(kme.certificate), path(kme.key), path(kme.ca))


def _skip_psks(config: SiteConfig) -> dict[bytes, bytes]:
    """Return the preshared keys by their identities. Raises ConfigurationError, also for one that two have."""
    entry = config.file.skip
    named = entry.psk if entry else {}
    keys = {identity.encode(): read_preshared_key(config.path(key.file)) for identity, key in named.items()}
    if len(set(keys.values())) != len(keys):
        raise ConfigurationError("[skip] psk: two identities have the same key; draw one for each")
    return keys


async def open_doors(
    stack: AsyncExitStack,
    config: SiteConfig,
    supply: Supply,
    store: SiteStore,
    tls: ssl.SSLContext,
    renewals: Renewals,
) -> None:
    """Open what is declared and nothing else; ``stack`` closes, ``renewals`` renews. Raises ConfigurationError."""
    boundary = config.boundary()
    rules = boundary.boundary
    together = partial(run_group, store.database)
    if rules.certificates is None or rules.certificates:  # an empty list: no consumer comes over a network
        server = KmeServer(supply, CertificateCallers(rules), rules.networks)
        server.commit_together(together)
        await server.start(*parse_address(config.file.kme.listen, "[kme] listen"), tls)
        renewals.add(kme_tls, server.renew)
        stack.push_async_callback(server.close)
    if boundary.socket is not None:
        local = KmeServer(supply, UserCallers(boundary.uids, rules))
        local.commit_together(together)
        await local.start_unix(boundary.socket)
        stack.callback(boundary.socket.unlink, missing_ok=True)
        stack.push_async_callback(local.close)
    if config.file.skip is not None:
        await _open_skip(stack, config, config.file.skip, supply, boundary, renewals)
    if config.file.etsi020 is not None:
        await _open_etsi020(stack, config, config.file.etsi020, supply, store, renewals)
    if config.file.etsi004 is not None:
        await _open_etsi004(stack, config, config.file.etsi004, supply, store, renewals)


async def _open_skip(
    stack: AsyncExitStack,
    config: SiteConfig,
    entry: SkipEntry,
    supply: Supply,
    boundary: SiteBoundary,
    renewals: Renewals,
) -> None:
    rules = boundary.boundary
    # What /entropy gives away comes from an instance of its own, never from one that draws secrets of the link.
    if entry.listen is not None:
        server = SkipServer(supply, entry.systems(), SystemRandomness(), CertificateCallers(rules), rules.networks)
        await server.start(*parse_address(entry.listen, "[skip] listen"), _skip_tls(config))
        renewals.add(_skip_tls, server.renew)
        stack.push_async_callback(server.close)
    if entry.psk_listen is not None:
        keys = _skip_psks(config)
        callers = PskCallers({identity: key.sae for identity, key in entry.psk.items()}, rules)
        server = SkipServer(supply, entry.systems(), SystemRandomness(), callers, rules.networks)
        await server.start_psk(*parse_address(entry.psk_listen, "[skip] psk_listen"), keys.get)

        async def renew(fresh: dict[bytes, bytes]) -> None:
            keys.clear()
            keys.update(fresh)

        renewals.add(_skip_psks, renew)
        stack.push_async_callback(server.close)


def _etsi020_tls(config: SiteConfig, peers: Sequence[str]) -> tuple[ssl.SSLContext, dict[str, ssl.SSLContext]]:
    """Return the contexts between key managers: the door's, and one for each peer. Raises ConfigurationError."""
    kme, entry = config.file.kme, config.file.etsi020
    own = (entry.certificate, entry.key, entry.ca) if entry else (None, None, None)
    certificate, key, ca = (
        config.path(one or default) for one, default in zip(own, (kme.certificate, kme.key, kme.ca), strict=True)
    )
    clients = {peer: tls13_client_tls(certificate, key, ca, peer) for peer in peers}
    return tls13_server_tls(certificate, key, ca), clients


async def _open_etsi020(
    stack: AsyncExitStack,
    config: SiteConfig,
    entry: Etsi020Entry,
    supply: Supply,
    store: SiteStore,
    renewals: Renewals,
) -> None:
    peers = tuple(peer.kme for peer in entry.peers)
    door, contexts = _etsi020_tls(config, peers)
    clients = {peer: Etsi020Client(context) for peer, context in contexts.items()}
    foreign = ForeignKeys(store.database, store.keys)
    clock = WallClock()
    interworking = Interworking(foreign, supply, entry.declared(), clock, synchronous=entry.synchronous)
    server = Etsi020Server(interworking)
    await server.start(*parse_address(entry.listen, "[etsi020] listen"), door)
    stack.push_async_callback(server.close)

    async def renew(made: tuple[ssl.SSLContext, dict[str, ssl.SSLContext]]) -> None:
        await server.renew(made[0])
        for peer, context in made[1].items():
            clients[peer].renew(context)

    renewals.add(partial(_etsi020_tls, peers=peers), renew)
    runner = InterworkingRunner(
        foreign,
        supply,
        {peer.kme: peer.url for peer in entry.peers},
        clients,
        f"{entry.url}/kmapi/v1/ext_keys/ack",
        tuple(ForeignPair(peer.kme, p.local, p.foreign, p.stock) for peer in entry.peers for p in peer.pairs),
        SystemRandomness(),
        clock,
    )
    stack.push_async_callback(runner.close)
    task = asyncio.create_task(runner.run())
    stack.push_async_callback(_end, task)


async def _open_etsi004(
    stack: AsyncExitStack,
    config: SiteConfig,
    entry: Etsi004Entry,
    supply: Supply,
    store: SiteStore,
    renewals: Renewals,
) -> None:
    rules = config.boundary().boundary
    records = StreamRecords(store.database, store.seal)
    streams = Streams(records, supply, entry.applications, entry.policy(), WallClock(), SystemRandomness())
    service = StreamService(streams, supply)
    stack.push_async_callback(service.close)
    where = parse_address(entry.peer_dial, "[etsi004] peer_dial")
    service.connect(OneTimeClient(*where, service.draw, MonotonicClock()))
    peer = OneTimeServer(service.answer)
    await peer.start(*parse_address(entry.peer_listen, "[etsi004] peer_listen"))
    stack.push_async_callback(peer.close)
    server = Etsi004Server(service.call, rules, rules.networks)
    await server.start(*parse_address(entry.listen, "[etsi004] listen"), kme_tls(config))
    renewals.add(kme_tls, server.renew)
    stack.push_async_callback(server.close)
    task = asyncio.create_task(service.sweep())
    stack.push_async_callback(_end, task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
