"""A running site: its links, one key manager and, where configured, the built-in encryptor, in one process."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from heliograph.agent.agent import Agent
from heliograph.agent.config import AgentConfig
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.kme.supply import Supply
from heliograph.ports import RandomSource, Vault
from heliograph.site.anchors import SiteAnchors, open_anchors
from heliograph.site.audit import check_approver
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.config import AGENT_KEY_BITS, SiteConfig, parse_address
from heliograph.site.control_socket import Orders, serve_control
from heliograph.site.delivery import InProcessKeySource
from heliograph.site.kme_doors import foreign_pairs, kme_tls, open_doors
from heliograph.site.live_settings import site_reloads
from heliograph.site.one_link import LinkSettings, SiteLink, end_tasks, open_link
from heliograph.site.policy import check_policy, read_identity
from heliograph.site.several_links import check_books_apart
from heliograph.site.site_supply import make_supply
from heliograph.site.status_socket import serve_status
from heliograph.site.workers import Workers
from heliograph.status import KmeStatus, SiteStatus
from heliograph.storage.local_keys import LocalKeys
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
        links = [asyncio.create_task(link.runner.run()) for link in site.links]
        stack.push_async_callback(site.close_links)
        stack.push_async_callback(end_tasks, links)
        if reload is not None:
            reloading = asyncio.create_task(site.reloads.watch(reload))
            stack.push_async_callback(end_tasks, [reloading])
        stack.push_async_callback(site.reloads.close)  # before a door closes: no reload opens it again
        await ready()
        waiting = asyncio.create_task(stop.wait())
        stack.push_async_callback(end_tasks, [waiting])
        sealing = asyncio.create_task(sealed.wait())
        stack.push_async_callback(end_tasks, [sealing])
        done, _ = await asyncio.wait({*links, waiting, sealing}, return_when=asyncio.FIRST_COMPLETED)
        for link in done.intersection(links):
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


def _agent_config(config: SiteConfig) -> AgentConfig:
    assert config.file.agent is not None  # a section that goes waits for a restart
    return AgentConfig.from_mapping(config.file.agent.tunnel)


def _agent_tls(config: SiteConfig) -> ssl.SSLContext | None:
    kme, agent, path = config.file.kme, config.file.agent, config.path
    if agent is None or agent.certificate is None or agent.key is None:  # none, or one of this process
        return None
    return client_tls(path(agent.certificate), path(agent.key), path(kme.ca), kme.id)


def _open_anchors(config: SiteConfig, kek: Vault) -> list[SiteAnchors]:
    anchors = [open_anchors(view, kek) for view in config.links]
    check_books_apart(
        {view.registration.link: one.record.book for view, one in zip(config.links, anchors, strict=True)}
    )
    return anchors


class _Site:
    def __init__(self, config: SiteConfig, kek: Vault, randomness: RandomSource, links: Sequence[SiteLink]) -> None:
        self.links = links
        self.agent: Agent | None = None
        self.supply: Supply
        self.reloads = site_reloads(config)
        self.reloads.add(lambda fresh: [LinkSettings.read(view) for view in fresh.links], self._follow)
        self._config = config
        self._kek = kek
        self._randomness = randomness

    @classmethod
    async def open(cls, config: SiteConfig, kek: Vault, stack: AsyncExitStack) -> _Site:
        """Open everything in order; what was opened is closed in the reverse order."""
        # What is only read comes first: a refusal then leaves no trace on the disk.
        anchors = _open_anchors(config, kek)
        check_policy(config)
        read_identity(config)
        tls = kme_tls(config), _agent_tls(config)
        compute = Workers()
        stack.callback(compute.close)
        links = [
            await open_link(view, kek, one, compute, stack) for view, one in zip(config.links, anchors, strict=True)
        ]
        site = cls(config, kek, SystemRandomness(), links)
        if config.file.delivery is None:  # else its front ends do
            await site._open_kme(stack, tls[0])
        await site._open_agent(stack, tls[1])
        for link in links:
            await link.runner.listen()
        server = await serve_status(config.path(config.file.status), site.status)
        stack.callback(config.path(config.file.status).unlink, missing_ok=True)
        stack.callback(server.close)
        return site

    async def _open_kme(self, stack: AsyncExitStack, tls: ssl.SSLContext) -> None:
        """Open the key manager: one supply over the stores of all links."""
        stores = {link.name: link.store for link in self.links}
        runners = {link.name: link.runner for link in self.links}
        first, further = stores[""], {name: store.keys for name, store in stores.items() if name}
        issue = LocalKeys(first.database, first.keys, SystemRandomness()).issue
        clocks = MonotonicClock(), WallClock()

        def planned(config: SiteConfig) -> Supply:
            beside = foreign_pairs(config)
            return make_supply(config, first.keys, clocks, lambda link: runners[link].connected, beside, issue, further)

        supply = planned(self._config)
        self.supply = supply
        # The supply first: a connection of an SAE that it does not serve any more is ended by the doors.
        self.reloads.add(planned, supply.follow)
        await open_doors(stack, self._config, supply, stores, tls, self.reloads)

    async def _open_agent(self, stack: AsyncExitStack, tls: ssl.SSLContext | None) -> None:
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
        agent = Agent(AgentConfig.from_mapping(entry.tunnel), client, MonotonicClock(), read_identity(self._config))
        await agent.start()
        stack.push_async_callback(agent.close)
        self.agent = agent
        self.reloads.add(_agent_config, agent.follow)

    async def status(self) -> SiteStatus:
        """Return the site's public figures."""
        told = await asyncio.gather(*(link.status() for link in self.links))
        return SiteStatus(
            site=self._config.file.name,
            process_id=os.getpid(),
            randomness=self._randomness.kind,
            kek=self._kek.kind,
            link=told[0][0],
            kme=_together([kme for _, kme in told]),
            agent=dataclasses.asdict(self.agent.status()) if self.agent else None,
            configuration=self.reloads.status(),
            further_links=tuple(link for link, _ in told[1:]),
        )

    async def close_links(self) -> None:
        """End the connections of all links at once."""
        await asyncio.gather(*(link.runner.close() for link in self.links))

    def _follow(self, settings: Sequence[LinkSettings]) -> None:
        for link, fresh in zip(self.links, settings, strict=True):
            link.follow(fresh)


def _together(parts: Sequence[KmeStatus]) -> KmeStatus:
    """Return the figures of one key manager over several stores."""
    return KmeStatus(
        sum(part.deliverable_keys for part in parts),
        sum(part.delivered_to_masters for part in parts),
        sum(part.delivered_to_slaves for part in parts),
        sum(part.damaged_keys for part in parts),
    )
