"""A running site: store, link, key manager and, where configured, the built-in encryptor, in one process."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from heliograph.agent.agent import Agent
from heliograph.agent.config import AgentConfig
from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.methods.registry import running_method
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.kme.supply import Supply
from heliograph.ports import Clock, RandomSource, Vault
from heliograph.site.anchors import open_anchors
from heliograph.site.audit import check_approver
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.comparison import describe_comparison, read_comparison
from heliograph.site.config import AGENT_KEY_BITS, SiteConfig, parse_address
from heliograph.site.control_socket import Orders, serve_control
from heliograph.site.delivery import InProcessKeySource
from heliograph.site.delivery_server import DeliveryServer
from heliograph.site.doors import LinkAnchors, LinkDoors
from heliograph.site.engine import EngineParts
from heliograph.site.kme_doors import foreign_pairs, kme_tls, open_doors
from heliograph.site.link import LinkRunner
from heliograph.site.link_plan import LinkPlan, SupplyHooks
from heliograph.site.live_settings import site_reloads
from heliograph.site.modules import open_module
from heliograph.site.policy import check_policy, read_identity
from heliograph.site.site_supply import make_supply
from heliograph.site.status_socket import serve_status
from heliograph.site.store import SiteStore, open_store
from heliograph.site.supply_plan import SupplyPlan
from heliograph.site.sweeper import sweep
from heliograph.site.workers import Workers
from heliograph.status import KmeStatus, LinkStatus, SiteStatus
from heliograph.storage.commit_records import CommitRecords
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords
from heliograph.storage.local_keys import LocalKeys
from heliograph.storage.outbox import require_nothing_under_way
from heliograph.storage.pg_keys import PgKeys
from heliograph.vault.randomness import SystemRandomness

__all__ = ["run_site"]


async def run_site(
    config: SiteConfig,
    kek: Vault,
    ready: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
    reload: asyncio.Event | None = None,
    log_level: Callable[[str | None], None] = lambda _: None,
) -> bool:
    """Run until ``stop`` is set. ``ready`` is awaited when the site listens; each ``reload`` reads SITE.toml anew.

    ``log_level``: sets what is logged. Returns True if it was ordered to seal.

    Raises ConfigurationError, StoreUnavailable or RollbackDetected with one line for the operator.
    """
    async with AsyncExitStack() as stack:
        site, sealed = await _Site.open(config, kek, stack), asyncio.Event()
        site.reloads.add(lambda fresh: fresh.file.log_level, log_level)
        stack.callback(await serve_control(config, _orders(site, kek, sealed)))
        link = asyncio.create_task(site.link.run())
        stack.push_async_callback(site.link.close)
        stack.push_async_callback(_end, link)
        if reload is not None:
            reloading = asyncio.create_task(site.reloads.watch(reload))
            stack.push_async_callback(_end, reloading)
        stack.push_async_callback(site.reloads.close)  # before a door closes: no reload opens it again
        await ready()
        waiting = asyncio.create_task(stop.wait())
        stack.push_async_callback(_end, waiting)
        sealing = asyncio.create_task(sealed.wait())
        stack.push_async_callback(_end, sealing)
        done, _ = await asyncio.wait({link, waiting, sealing}, return_when=asyncio.FIRST_COMPLETED)
        if link in done:
            link.result()
    return sealed.is_set() and not stop.is_set()


def _orders(site: _Site, kek: Vault, sealed: asyncio.Event) -> Orders:
    async def seal(_: bytes) -> str:
        sealed.set()
        return ""

    async def reload(approver: bytes) -> str:
        return await site.reloads.reload(check_approver(approver.decode(errors="replace")))

    # A plain file opens by itself: there is nothing to be sealed by.
    return {"reload": reload} if kek.kind == "file" else {"reload": reload, "seal": seal}


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _trim(keys: KeyRecords | PgKeys, plan: SupplyPlan, keys_max: int, ttl_s: float | None) -> None:
    """Bound each pair's stock, the owner's to twice ``keys_max``, the holder's to twice that; and the age of keys."""
    now = WallClock().now()
    local = {(group.master, group.audience) for group in plan.groups if group.local}
    for master, audience, owner_here in plan.stocks:
        if (master, audience) in local:
            continue  # their master has its copies already: bounded where they are issued
        keep = 2 * keys_max if owner_here else 4 * keys_max
        keys.trim(master, audience, owner_here=owner_here, keep=keep, now=now)
    if ttl_s is not None:
        # A key handed out at the last moment is still there when the slave asks.
        keys.expire(now - ttl_s, now, grace=ttl_s)


def _after_trouble(opened: SiteStore, delivery: DeliveryServer | None) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what proves that keys can be stored again, and what destroys everything after a rollback."""
    if delivery is None:
        return opened.probe, opened.destroy_all

    def probe() -> None:
        opened.probe()
        delivery.hand_over()

    def destroy_all() -> None:
        opened.destroy_all()
        delivery.destroy_all()

    return probe, destroy_all


def _agent_config(config: SiteConfig) -> AgentConfig:
    assert config.file.agent is not None  # a section that goes waits for a restart
    return AgentConfig.from_mapping(config.file.agent.tunnel)


def _agent_tls(config: SiteConfig) -> ssl.SSLContext | None:
    kme, agent, path = config.file.kme, config.file.agent, config.path
    if agent is None or agent.certificate is None or agent.key is None:  # none, or one of this process
        return None
    return client_tls(path(agent.certificate), path(agent.key), path(kme.ca), kme.id)


def _link_limits(config: SiteConfig) -> tuple[tuple[str, int] | None, int, int]:
    """Return what of the link's plan can change under way. Raises ConfigurationError."""
    entry = config.file.link
    return parse_address(entry.dial, "[link] dial") if entry.dial else None, entry.in_flight, entry.keys_max


def _transcripts(commits: CommitRecords, epoch: int) -> dict[int, str]:
    return {block: str(report["transcript_sha256"]) for of, block, report in commits.committed_blocks() if of == epoch}


class _Site:
    def __init__(
        self,
        config: SiteConfig,
        kek: Vault,
        randomness: RandomSource,
        keys: KeyRecords | PgKeys,
        link: LinkRunner,
        chain: Callable[[int], str | None],
        delivery: DeliveryServer | None = None,
    ) -> None:
        self.link = link
        self.agent: Agent | None = None
        self.supply: Supply
        self.reloads = site_reloads(config)
        self.reloads.add(SiteConfig.supply, self._follow_plan)
        self.reloads.add(_link_limits, lambda limits: link.follow(*limits))
        self._config = config
        self._plan = config.supply()
        self._kek = kek
        self._randomness = randomness
        self._keys = keys
        self._delivery = delivery
        self._chain = chain
        self._chains: dict[int, str] = {}

    @classmethod
    async def open(cls, config: SiteConfig, kek: Vault, stack: AsyncExitStack) -> _Site:
        """Open everything in order; what was opened is closed in the reverse order."""
        file, registration = config.file, config.registration
        randomness, clock, wall = SystemRandomness(), MonotonicClock(), WallClock()
        # What is only read comes first: a refusal then leaves no trace on the disk.
        anchors = open_anchors(config, kek)
        check_policy(config)
        read_identity(config)
        tls = kme_tls(config), _agent_tls(config)
        database = Database(config.path(file.store), kek)
        stack.callback(database.close)
        # Public seeds come from another instance than secret bits (security.md 6).
        public, opened = SystemRandomness(), open_store(database, config.path(file.anchor), randomness)
        records, delivery = opened.records, None
        keys: KeyRecords | PgKeys = opened.keys
        if file.delivery is None:
            require_nothing_under_way(database)
        else:
            delivery = DeliveryServer(file.delivery, kek, database, opened.keys)
            stack.callback(delivery.close)
            keys = delivery.keys
            delivery.hand_over()  # before the peer is told again of what waits here
        is_transmitter = file.link.role == "transmitter"
        commits = CommitRecords(
            database,
            records,
            delivery.outbox if delivery else opened.keys,
            registration,
            is_transmitter=is_transmitter,
            now=wall.now,
            seal=opened.seal,
            hand_over=delivery.hand_over if delivery else None,
        )
        module = await open_module(
            file.module.name, file.module.settings, SystemRandomness(), is_transmitter=is_transmitter
        )
        stack.push_async_callback(module.close)
        compute, store = Workers(), ThreadPoolExecutor(1, "store")
        stack.callback(compute.close)
        stack.callback(store.shutdown)
        parts = EngineParts(
            records,
            commits,
            Authenticator(records, running_method(registration.mac)),
            public,
            clock,
            module,
            compute,
            store,
            file.link.block_seconds,
        )
        where = str(config.directory)
        plan = LinkPlan(
            site=file.name,
            is_transmitter=is_transmitter,
            dial=parse_address(file.link.dial, where) if file.link.dial else None,
            listen=parse_address(file.link.listen, where) if file.link.listen else None,
            in_flight=file.link.in_flight,
            keys_max=file.link.keys_max,
        )
        doors = LinkDoors(
            registration,
            file.name,
            LinkAnchors(anchors.book, anchors.signer, anchors.trust, anchors.mark),
            records,
            public,
            SystemRandomness(),
            wall,
        )
        hooks = SupplyHooks(lambda: site.stored(), *_after_trouble(opened, delivery))  # noqa: PLW0108  - made below
        site = cls(
            config,
            kek,
            randomness,
            keys,
            LinkRunner(plan, registration, doors, parts, hooks),
            lambda epoch: doors.chain(_transcripts(commits, epoch)),
            delivery,
        )
        steps: list[Callable[[], object]] = [site.trim]
        if delivery is not None:
            stocks = [(master, audience) for master, audience, here in site._plan.stocks if here]
            steps.append(lambda: delivery.sweep(stocks, connected=site.link.connected))
        else:
            local = LocalKeys(database, opened.keys, SystemRandomness())
            steps.append(lambda: local.forget(WallClock().now()))
        sweeper = asyncio.create_task(sweep(database, store, *steps))
        stack.push_async_callback(_end, sweeper)
        if delivery is None:  # else its front ends do
            await site._open_kme(stack, (clock, wall), tls[0], opened)
        await site._open_agent(stack, clock, tls[1])
        await site.link.listen()
        server = await serve_status(config.path(file.status), site.status)
        stack.callback(config.path(file.status).unlink, missing_ok=True)
        stack.callback(server.close)
        return site

    async def _open_kme(
        self,
        stack: AsyncExitStack,
        clocks: tuple[Clock, WallClock],
        tls: ssl.SSLContext,
        store: SiteStore,
    ) -> None:
        issue = LocalKeys(store.database, store.keys, SystemRandomness()).issue

        def planned(config: SiteConfig) -> Supply:
            return make_supply(config, store.keys, clocks, lambda: self.link.connected, foreign_pairs(config), issue)

        supply = planned(self._config)
        self.supply = supply
        # The supply first: a connection of an SAE that it does not serve any more is ended by the doors.
        self.reloads.add(planned, supply.follow)
        await open_doors(stack, self._config, supply, store, tls, self.reloads)

    async def _open_agent(self, stack: AsyncExitStack, clock: MonotonicClock, tls: ssl.SSLContext | None) -> None:
        """Start the encryptor: a consumer like any other, over mutual TLS or, where declared, in this process."""
        entry, kme = self._config.file.agent, self._config.file.kme
        if entry is None:
            return
        client: Etsi014Client | InProcessKeySource
        if tls is None:
            # What of the boundary could shut it out is checked with [agent] whenever the file is read.
            boundary = self._config.boundary().boundary
            client = InProcessKeySource(self.supply, boundary, entry.sae, entry.peer_sae, AGENT_KEY_BITS)
        else:
            host, port = parse_address(kme.listen, "[kme] listen")
            client = networked = Etsi014Client(f"https://{host}:{port}", tls, entry.sae, entry.peer_sae)
            self.reloads.add(_agent_tls, lambda fresh: networked.renew(fresh or tls))
        stack.push_async_callback(client.close)
        agent = Agent(AgentConfig.from_mapping(entry.tunnel), client, clock, read_identity(self._config))
        await agent.start()
        stack.push_async_callback(agent.close)
        self.agent = agent
        self.reloads.add(_agent_config, agent.follow)

    async def status(self) -> SiteStatus:
        """Return the site's public figures."""
        to_masters, to_slaves = self._delivery.delivered if self._delivery else self._keys.delivered_counts()
        return SiteStatus(
            site=self._config.file.name,
            process_id=os.getpid(),
            randomness=self._randomness.kind,
            kek=self._kek.kind,
            link=self._link_status(),
            kme=KmeStatus(self.deliverable(), to_masters, to_slaves, (self._delivery or self._keys).damaged_count()),
            agent=dataclasses.asdict(self.agent.status()) if self.agent else None,
            configuration=self.reloads.status(),
        )

    def _link_status(self) -> LinkStatus:
        link = self.link.status()
        # Once there is one it stays for the epoch.
        chain = self._chains.get(link.epoch) or (self._chain(link.epoch) if link.blocks else None)
        if chain is not None:
            self._chains = {link.epoch: chain}
        compared = describe_comparison(read_comparison(self._config, link.epoch, chain))
        return msgspec.structs.replace(link, chain=chain, compared=compared)

    def deliverable(self) -> int:
        """Return how many keys this site's SAEs could fetch as masters."""
        if self._delivery is not None:  # as its last sweep found it: whoever asks never waits for the server
            return self._delivery.deliverable
        return self.stored()

    def stored(self) -> int:
        """Return the same, as the store counts it now."""
        return sum(self._keys.stored_key_count(m, s) for m, s, here in self._plan.stocks if here)

    def trim(self) -> None:
        """Destroy the keys that the configuration in force has no room or no time for."""
        file = self.reloads.config.file
        _trim(self._keys, self._plan, file.link.keys_max, file.kme.key_ttl_s)

    def _follow_plan(self, plan: SupplyPlan) -> None:
        self._plan = plan
