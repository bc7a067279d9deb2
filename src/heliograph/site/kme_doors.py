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
from heliograph.kme.etsi020_records import Extension
from heliograph.kme.foreign_groups import ForeignGroup
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
    if entry is None:
        return []
    found = {(pair.local, pair.foreign): peer.kme for peer in entry.peers for pair in peer.pairs}
    for group in entry.foreign_groups():
        # As of a link's groups: a slave here with the master, or the master here with a slave.
        for slave in group.slaves:
            for local, foreign in ((group.master, slave), (slave, group.master)):
                if local in group.here and foreign in group.behind:
                    found.setdefault((local, foreign), group.behind[foreign])
    return [SaePair(*names, kme) for names, kme in found.items()]


def kme_tls(config: SiteConfig) -> ssl.SSLContext:
    """Return the key manager's own context. Raises ConfigurationError."""
    kme, path = config.file.kme, config.path
    return server_tls(path(kme.certificate), path(kme.key), path(kme.ca))


def _skip_tls(config: SiteConfig) -> ssl.SSLContext:
    kme, path = config.file.kme, config.path
    return skip_server_tls(path(kme.certificate), path(kme.key), path(kme.ca), tls12=_skip(config).tls12)


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
    """What every door needs. ``stack`` closes, ``reloads`` keeps up with the configuration.

    ``store``: of the first link, where what belongs to no link is kept too.
    """

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
    stores: Mapping[str, SiteStore],
    tls: ssl.SSLContext,
    reloads: Reloads[SiteConfig],
) -> None:
    """Open what is declared and nothing else. ``stores``: of the links by name, "" the first. ConfigurationError."""
    site = _Site(stack, config, supply, stores[""], reloads, Sources())
    boundary = config.boundary()
    rules = boundary.boundary
    if rules.certificates is None or rules.certificates:  # an empty list: no consumer comes over a network
        server = KmeServer(supply, CertificateCallers(rules), rules.networks)
        _commit_together(server, stores)
        await server.start(*parse_address(config.file.kme.listen, "[kme] listen"), tls, site.sources)
        stack.push_async_callback(server.close)
        follow_boundary(reloads, server)
    if boundary.socket is not None:
        local = KmeServer(supply, UserCallers(boundary.uids, rules))
        _commit_together(local, stores)
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


def _commit_together(door: KmeServer, stores: Mapping[str, SiteStore]) -> None:
    for link, store in stores.items():
        door.commit_together(partial(run_group, store.database), store.database, link)


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
    older = _tls12_identities(site.config)

    def of_version(*, tls12: bool) -> Callable[[bytes], bytes | None]:
        # An identity belongs to one version of TLS. ``older`` changes with ``keys``.
        return lambda identity: keys.get(identity) if (identity in older) == tls12 else None

    find_tls12 = of_version(tls12=True) if entry.tls12 else None
    where = parse_address(listen, "[skip] psk_listen")
    await server.start_psk(*where, of_version(tls12=False), find_tls12, site.sources)
    site.stack.push_async_callback(server.close)

    def make(config: SiteConfig) -> Callable[[], None]:
        fresh, networks = _skip_psks(config), config.boundary().boundary.networks
        fresh_older = _tls12_identities(config)
        # A connection under a key that is another one now, of another version, or gone, ends; the others go on.
        moved = older ^ fresh_older
        same = {name: key for name, key in fresh.items() if keys.get(name) == key and name not in moved}
        admit = partial(server.admit, _skip(config).systems())
        stay, everybody = _psk_callers(config, same), _psk_callers(config, fresh)

        def change() -> None:
            keys.clear()
            keys.update(fresh)
            older.clear()
            older.update(fresh_older)
            admit(stay, networks)
            admit(everybody, networks)

        return change

    site.reloads.add(make, _call)


def _tls12_identities(config: SiteConfig) -> set[bytes]:
    return {identity.encode() for identity, key in _skip(config).psk.items() if key.tls12}


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
    groups: tuple[ForeignGroup, ...]
    said: Extension | None

    @property
    def names(self) -> set[tuple[str, str]]:
        """The pairs: an SAE here, and one behind another key manager."""
        return {(pair.local_sae, pair.foreign_sae) for pair in self.pairs}

    @classmethod
    def read(cls, config: SiteConfig) -> _Peers:
        """Read the entry. Raises ConfigurationError."""
        entry, files = _etsi020(config), _etsi020_files(config)
        return cls(
            entry.declared(config.file.kme.id),
            entry.synchronous,
            {peer.kme: peer.url for peer in entry.peers},
            {peer.kme: tls13_client_tls(*files, peer.kme) for peer in entry.peers},
            tuple(ForeignPair(peer.kme, p.local, p.foreign, p.stock) for peer in entry.peers for p in peer.pairs),
            entry.foreign_groups(),
            entry.said(config.file.kme.id),
        )


async def _open_etsi020(site: _Site, entry: Etsi020Entry) -> None:
    store, supply, stack = site.store, site.supply, site.stack
    door, peers = _etsi020_tls(site.config), _Peers.read(site.config)
    clients = {peer: Etsi020Client(context) for peer, context in peers.contexts.items()}
    foreign = ForeignKeys(store.database, store.keys)
    clock = WallClock()
    interworking = Interworking(
        foreign, supply, peers.declared, clock, synchronous=peers.synchronous, groups=peers.groups
    )
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
        peers.groups,
        peers.said,
    )

    def follow(now: _Peers) -> None:
        interworking.declare(now.declared, synchronous=now.synchronous, groups=now.groups, pairs=now.names)
        for peer, context in now.contexts.items():
            clients.setdefault(peer, Etsi020Client(context)).renew(context)
        # A client of a peer that is gone stays until the end: what it has under way is finished.
        runner.declare(now.urls, clients, now.pairs, now.groups, now.said)
        server.end_strangers()

    site.reloads.prepare(renews(server, _etsi020_tls))
    site.reloads.add(_Peers.read, follow)
    stack.push_async_callback(runner.close)
    task = asyncio.create_task(runner.run())
    stack.push_async_callback(_end, task)


def _etsi004(config: SiteConfig) -> Etsi004Entry:
    assert config.file.etsi004 is not None  # a section that goes waits for a restart
    return config.file.etsi004


async def _open_etsi004(site: _Site, entry: Etsi004Entry) -> None:
    store, supply, stack = site.store, site.supply, site.stack
    rules = site.config.boundary().boundary
    records = StreamRecords(store.database, store.seal)
    streams = Streams(records, supply, entry.applications, entry.policy(), WallClock(), SystemRandomness())
    service = StreamService(streams, supply)
    stack.push_async_callback(service.close)
    where = site.config.streams_dials()
    clients = {link: OneTimeClient(*at, service.draw, MonotonicClock()) for link, at in where.items()}
    service.connect(clients)
    peer = OneTimeServer(service.answer, {host for host, _ in where.values()})
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

    def move(where: Mapping[str, tuple[str, int]]) -> None:
        for link, at in where.items():
            clients.setdefault(link, OneTimeClient(*at, service.draw, MonotonicClock())).move(*at)
        for gone in clients.keys() - where:
            del clients[gone]
        peer.expect({host for host, _ in where.values()})

    site.reloads.add(SiteConfig.streams_dials, move)
    task = asyncio.create_task(service.sweep())
    stack.push_async_callback(_end, task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
