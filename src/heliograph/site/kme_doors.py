"""The doors of a site's key manager: one supply, and every way that the site file opens to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from heliograph.doors.sources import Sources
from heliograph.errors import ConfigurationError
from heliograph.http.callers import CertificateCallers, PskCallers, UserCallers
from heliograph.http.etsi020_client import Etsi020Client
from heliograph.http.etsi020_server import Etsi020Server
from heliograph.http.server import KmeServer
from heliograph.http.skip_server import SkipServer
from heliograph.http.tls import server_tls, skip_server_tls, tls13_client_tls, tls13_server_tls
from heliograph.kme.interworking import Interworking, InterworkingPeer
from heliograph.kme.streams import Streams
from heliograph.kme.supply import SaePair, Supply
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.config import SiteConfig, parse_address
from heliograph.site.interworking import ForeignPair, InterworkingRunner
from heliograph.site.protocol_entries import Etsi004Entry, Etsi020Entry, SkipEntry
from heliograph.site.reload import Reloads
from heliograph.site.renewing import renews
from heliograph.site.store import SiteStore
from heliograph.site.streams import StreamService
from heliograph.storage.foreign_keys import ForeignKeys
from heliograph.storage.group_commit import run_group
from heliograph.storage.streams import StreamRecords
from heliograph.transport.etsi004_server import Etsi004Server
from heliograph.transport.one_time_channel import OneTimeClient, OneTimeServer
from heliograph.vault.preshared_key import read_preshared_key
from heliograph.vault.randomness import SystemRandomness

__all__ = ["follow_boundary", "foreign_pairs", "kme_tls", "open_doors"]


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


def _skip(config: SiteConfig) -> SkipEntry:
    assert config.file.skip is not None  # a section that goes waits for a restart
    return config.file.skip


def _skip_psks(config: SiteConfig) -> dict[bytes, bytes]:
    """Return the preshared keys by their identities. Raises ConfigurationError, also for one that two have."""
    named = _skip(config).psk
    keys = {identity.encode(): read_preshared_key(config.path(key.file)) for identity, key in named.items()}
    if len(set(keys.values())) != len(keys):
        raise ConfigurationError("[skip] psk: two identities have the same key; draw one for each")
    return keys


@dataclass(frozen=True, slots=True)
class _Site:
    """What every door needs. ``stack`` closes, ``reloads`` keeps up with the configuration."""

    stack: AsyncExitStack
    config: SiteConfig
    supply: Supply
    store: SiteStore
    reloads: Reloads[SiteConfig]
    sources: Sources  # of connections: one for all doors


async def open_doors(
    stack: AsyncExitStack,
    config: SiteConfig,
    supply: Supply,
    store: SiteStore,
    tls: ssl.SSLContext,
    reloads: Reloads[SiteConfig],
) -> None:
    """Open what is declared and nothing else. Raises ConfigurationError."""
    site = _Site(stack, config, supply, store, reloads, Sources())
    boundary = config.boundary()
    rules = boundary.boundary
    together = partial(run_group, store.database)
    if rules.certificates is None or rules.certificates:  # an empty list: no consumer comes over a network
        server = KmeServer(supply, CertificateCallers(rules), rules.networks)
        server.commit_together(together, store.database)
        await server.start(*parse_address(config.file.kme.listen, "[kme] listen"), tls, site.sources)
        stack.push_async_callback(server.close)
        follow_boundary(reloads, server)
    if boundary.socket is not None:
        local = KmeServer(supply, UserCallers(boundary.uids, rules))
        local.commit_together(together, store.database)
        await local.start_unix(boundary.socket)
        stack.callback(boundary.socket.unlink, missing_ok=True)
        stack.push_async_callback(local.close)
        reloads.add(SiteConfig.boundary, lambda now: local.admit(UserCallers(now.uids, now.boundary), ()))
    if config.file.skip is not None:
        await _open_skip(site, config.file.skip)
    if config.file.etsi020 is not None:
        await _open_etsi020(site, config.file.etsi020)
    if config.file.etsi004 is not None:
        await _open_etsi004(site, config.file.etsi004)


def follow_boundary(reloads: Reloads[SiteConfig], door: KmeServer) -> None:
    """Let a door of ETSI GS QKD 014 over TLS follow the certificates and the boundary."""
    reloads.prepare(renews(door, kme_tls))
    reloads.add(
        lambda config: config.boundary().boundary, lambda rules: door.admit(CertificateCallers(rules), rules.networks)
    )


async def _open_skip(site: _Site, entry: SkipEntry) -> None:
    # What /entropy gives away comes from an instance of its own, never from one that draws secrets of the link.
    if entry.listen is not None:
        rules = site.config.boundary().boundary
        server = SkipServer(site.supply, entry.systems(), SystemRandomness(), CertificateCallers(rules), rules.networks)
        await server.start(*parse_address(entry.listen, "[skip] listen"), _skip_tls(site.config), site.sources)
        site.stack.push_async_callback(server.close)

        def make(config: SiteConfig) -> Callable[[], None]:
            rules = config.boundary().boundary
            return partial(server.admit, _skip(config).systems(), CertificateCallers(rules), rules.networks)

        site.reloads.prepare(renews(server, _skip_tls))
        site.reloads.add(make, _call)
    if entry.psk_listen is not None:
        await _open_skip_psk(site, entry, entry.psk_listen)


async def _open_skip_psk(site: _Site, entry: SkipEntry, listen: str) -> None:
    keys = _skip_psks(site.config)
    rules = site.config.boundary().boundary
    callers = _psk_callers(site.config, keys)
    server = SkipServer(site.supply, entry.systems(), SystemRandomness(), callers, rules.networks)
    await server.start_psk(*parse_address(listen, "[skip] psk_listen"), keys.get, site.sources)
    site.stack.push_async_callback(server.close)

    def make(config: SiteConfig) -> Callable[[], None]:
        fresh, networks = _skip_psks(config), config.boundary().boundary.networks
        # A connection under a key that is another one now, or that is gone, ends; those under the same key go on.
        same = {identity: key for identity, key in fresh.items() if keys.get(identity) == key}
        admit = partial(server.admit, _skip(config).systems())
        stay, everybody = _psk_callers(config, same), _psk_callers(config, fresh)

        def change() -> None:
            keys.clear()
            keys.update(fresh)
            admit(stay, networks)
            admit(everybody, networks)

        return change

    site.reloads.add(make, _call)


def _psk_callers(config: SiteConfig, keys: Mapping[bytes, bytes]) -> PskCallers:
    named = {identity: key.sae for identity, key in _skip(config).psk.items() if identity.encode() in keys}
    return PskCallers(named, config.boundary().boundary)


def _call(change: Callable[[], None]) -> None:
    change()


def _etsi020(config: SiteConfig) -> Etsi020Entry:
    assert config.file.etsi020 is not None  # a section that goes waits for a restart
    return config.file.etsi020


def _etsi020_files(config: SiteConfig) -> tuple[Path, Path, Path]:
    kme, entry = config.file.kme, _etsi020(config)
    own = (entry.certificate or kme.certificate, entry.key or kme.key, entry.ca or kme.ca)
    return config.path(own[0]), config.path(own[1]), config.path(own[2])


def _etsi020_tls(config: SiteConfig) -> ssl.SSLContext:
    return tls13_server_tls(*_etsi020_files(config))


@dataclass(frozen=True, slots=True)
class _Peers:
    """The other key managers of this site: what is known of them, and with what this one calls them."""

    declared: list[InterworkingPeer]
    synchronous: bool
    urls: Mapping[str, str]
    contexts: Mapping[str, ssl.SSLContext]
    pairs: tuple[ForeignPair, ...]

    @classmethod
    def read(cls, config: SiteConfig) -> _Peers:
        """Read the entry. Raises ConfigurationError."""
        entry, files = _etsi020(config), _etsi020_files(config)
        return cls(
            entry.declared(),
            entry.synchronous,
            {peer.kme: peer.url for peer in entry.peers},
            {peer.kme: tls13_client_tls(*files, peer.kme) for peer in entry.peers},
            tuple(ForeignPair(peer.kme, p.local, p.foreign, p.stock) for peer in entry.peers for p in peer.pairs),
        )


async def _open_etsi020(site: _Site, entry: Etsi020Entry) -> None:
    store, supply, stack = site.store, site.supply, site.stack
    door, peers = _etsi020_tls(site.config), _Peers.read(site.config)
    clients = {peer: Etsi020Client(context) for peer, context in peers.contexts.items()}
    foreign = ForeignKeys(store.database, store.keys)
    clock = WallClock()
    interworking = Interworking(foreign, supply, peers.declared, clock, synchronous=peers.synchronous)
    server = Etsi020Server(interworking)
    await server.start(*parse_address(entry.listen, "[etsi020] listen"), door, site.sources)
    stack.push_async_callback(server.close)
    runner = InterworkingRunner(
        foreign,
        supply,
        peers.urls,
        clients,
        f"{entry.url}/kmapi/v1/ext_keys/ack",
        peers.pairs,
        SystemRandomness(),
        clock,
    )

    def follow(now: _Peers) -> None:
        interworking.declare(now.declared, synchronous=now.synchronous)
        for peer, context in now.contexts.items():
            clients.setdefault(peer, Etsi020Client(context)).renew(context)
        # A client of a peer that is gone stays until the end: what it has under way is finished.
        runner.declare(now.urls, clients, now.pairs)
        server.end_strangers()

    site.reloads.prepare(renews(server, _etsi020_tls))
    site.reloads.add(_Peers.read, follow)
    stack.push_async_callback(runner.close)
    task = asyncio.create_task(runner.run())
    stack.push_async_callback(_end, task)


def _etsi004(config: SiteConfig) -> Etsi004Entry:
    assert config.file.etsi004 is not None  # a section that goes waits for a restart
    return config.file.etsi004


def _peer_dial(config: SiteConfig) -> tuple[str, int]:
    return parse_address(_etsi004(config).peer_dial, "[etsi004] peer_dial")


async def _open_etsi004(site: _Site, entry: Etsi004Entry) -> None:
    store, supply, stack = site.store, site.supply, site.stack
    rules = site.config.boundary().boundary
    records = StreamRecords(store.database, store.seal)
    streams = Streams(records, supply, entry.applications, entry.policy(), WallClock(), SystemRandomness())
    service = StreamService(streams, supply)
    stack.push_async_callback(service.close)
    where = _peer_dial(site.config)
    client = OneTimeClient(*where, service.draw, MonotonicClock())
    service.connect(client)
    peer = OneTimeServer(service.answer, {where[0]})
    await peer.start(*parse_address(entry.peer_listen, "[etsi004] peer_listen"))
    stack.push_async_callback(peer.close)
    server = Etsi004Server(service.call, rules, rules.networks, supply.serves)
    await server.start(*parse_address(entry.listen, "[etsi004] listen"), kme_tls(site.config), site.sources)
    stack.push_async_callback(server.close)
    site.reloads.prepare(renews(server, kme_tls))
    site.reloads.add(
        lambda config: config.boundary().boundary, lambda now: server.admit(now, now.networks, supply.serves)
    )
    site.reloads.add(
        lambda config: (_etsi004(config).applications, _etsi004(config).policy()), lambda now: streams.declare(*now)
    )
    site.reloads.add(_peer_dial, lambda where: client.move(*where))
    site.reloads.add(_peer_dial, lambda where: peer.expect({where[0]}))
    task = asyncio.create_task(service.sweep())
    stack.push_async_callback(_end, task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
