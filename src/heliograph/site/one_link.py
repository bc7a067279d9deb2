"""One link of a site with all that is its own: store, anchors, module, threads, runner; and what is told about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.methods.registry import running_method
from heliograph.errors import ConfigurationError, RollbackDetected, StoreUnavailable, TransportClosed
from heliograph.ports import Receiver, Transmitter, Vault
from heliograph.site.anchors import SiteAnchors
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.comparison import describe_comparison, read_comparison
from heliograph.site.config import SiteConfig, parse_address
from heliograph.site.delivery_server import DeliveryServer
from heliograph.site.doors import LinkAnchors, LinkDoors
from heliograph.site.engine import EngineParts
from heliograph.site.link import LinkRunner
from heliograph.site.link_plan import LinkPlan, SupplyHooks
from heliograph.site.modules import LateModule, open_module
from heliograph.site.store import SiteStore, open_database, open_store
from heliograph.site.supply_plan import SupplyPlan
from heliograph.site.sweeper import sweep, sweep_once
from heliograph.site.workers import Workers
from heliograph.status import KmeStatus, LinkStatus
from heliograph.storage.commit_records import CommitRecords
from heliograph.storage.keys import KeyRecords
from heliograph.storage.local_keys import LocalKeys
from heliograph.storage.outbox import require_nothing_under_way
from heliograph.storage.pg_keys import PgKeys
from heliograph.vault.randomness import SystemRandomness

__all__ = ["LinkSettings", "SiteLink", "end_tasks", "open_link", "trim_keys"]

STATUS_S = 2.0  # our choice: so long a status waits for a link's store

_log = structlog.get_logger("heliograph.link")


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What of a link can change under way, checked. ``plan``: of its own keys alone."""

    view: SiteConfig
    plan: SupplyPlan
    dial: tuple[str, int] | None

    @classmethod
    def read(cls, view: SiteConfig) -> LinkSettings:
        """Read it from the site as seen from this link. Raises ConfigurationError."""
        dial = view.file.link.dial
        return cls(view, view.supply(), parse_address(dial, "[link] dial") if dial else None)


class SiteLink:
    """A link that was opened. ``thread``: the one that writes its store."""

    def __init__(
        self, settings: LinkSettings, runner: LinkRunner, store: SiteStore, delivery: DeliveryServer | None
    ) -> None:
        self.runner = runner
        self.store = store
        self.keys: KeyRecords | PgKeys = delivery.keys if delivery else store.keys
        self._settings = settings
        self._delivery = delivery
        self._chain: Callable[[int], str | None]
        self._chains: dict[int, str] = {}
        self._told: tuple[LinkStatus, KmeStatus] | None = None
        self._asked: asyncio.Future[tuple[LinkStatus, KmeStatus]] | None = None
        self._reader = ThreadPoolExecutor(1, "status")

    @property
    def name(self) -> str:
        """Which further link it is; empty for the first."""
        return self._settings.view.link_name

    def chain_by(self, chain: Callable[[int], str | None]) -> None:
        """Take the chain of an epoch, once there is one, from ``chain``."""
        self._chain = chain

    def follow(self, settings: LinkSettings) -> None:
        """Go on by these settings."""
        self._settings, entry = settings, settings.view.file.link
        self.runner.follow(settings.dial, entry.in_flight, entry.keys_max)

    async def status(self) -> tuple[LinkStatus, KmeStatus]:
        """Return the public figures, of the link and of its keys.

        Of several links one whose store cannot be read is told as it was last, with the reason as its state: the
        figures of the others must not go with it. Raises StoreUnavailable for an only one, or before the first time.
        They are read on a thread of their own: a disk that hangs must stop neither the links nor the encryptor.
        """
        try:
            self._told = await self._read_figures()
        except StoreUnavailable as why:
            if self._told is None or not self._settings.view.is_view:
                raise
            link, kme = self._told
            self._told = msgspec.structs.replace(link, state=f"store unavailable: {why}"), kme
        return self._told

    async def _read_figures(self) -> tuple[LinkStatus, KmeStatus]:
        asked = self._asked
        if asked is None or asked.done():  # else whoever asks meanwhile waits for the same
            asked = self._asked = asyncio.get_running_loop().run_in_executor(self._reader, self._figures)
        done, _ = await asyncio.wait([asked], timeout=STATUS_S)
        if not done:
            raise StoreUnavailable("the store does not answer; check its disk")
        return asked.result()

    def _figures(self) -> tuple[LinkStatus, KmeStatus]:
        return self._link_status(), self._kme_status()

    def close(self) -> None:
        """Read no more figures."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _link_status(self) -> LinkStatus:
        link = self.runner.status()
        # Once there is one it stays for the epoch.
        chain = self._chains.get(link.epoch) or (self._chain(link.epoch) if link.blocks else None)
        if chain is not None:
            self._chains = {link.epoch: chain}
        compared = describe_comparison(read_comparison(self._settings.view, link.epoch, chain))
        return msgspec.structs.replace(link, chain=chain, compared=compared)

    def _kme_status(self) -> KmeStatus:
        if self._delivery is not None:  # as its last sweep found it: whoever asks never waits for the server
            delivery = self._delivery
            return KmeStatus(delivery.deliverable, *delivery.delivered, delivery.damaged_count())
        return KmeStatus(self.stored(), *self.keys.delivered_counts(), self.keys.damaged_count())

    def stored(self) -> int:
        """Return how many keys of this link the site's SAEs could fetch as masters, as the store counts them now."""
        return sum(self.keys.stored_key_count(m, s) for m, s, here in self._settings.plan.stocks if here)

    def trim(self) -> None:
        """Destroy the keys that the configuration in force has no room or no time for."""
        file = self._settings.view.file
        trim_keys(self.keys, self._settings.plan, file.link.keys_max, file.kme.key_ttl_s)


async def open_link(
    view: SiteConfig, kek: Vault, anchors: SiteAnchors, compute: Workers, stack: AsyncExitStack
) -> SiteLink:
    """Open all that is a link's own, in order; ``stack`` closes it in the reverse order. Its port stays shut.

    Raises ConfigurationError, StoreUnavailable, RollbackDetected, each of which names the link if there are several.
    """
    try:
        return await _open(view, kek, anchors, compute, stack)
    except (ConfigurationError, StoreUnavailable, RollbackDetected) as why:
        if not view.is_view:
            raise
        command = "`heliograph site rebootstrap"  # which wants to know the link at a site of several
        said = str(why).replace(f"{command}`", f"{command}{view.link_option}`")
        raise type(why)(f"link {view.registration.link!r}: {said}") from None


async def _open(
    view: SiteConfig, kek: Vault, anchors: SiteAnchors, compute: Workers, stack: AsyncExitStack
) -> SiteLink:
    file, registration = view.file, view.registration
    settings = LinkSettings.read(view)
    clock, wall = MonotonicClock(), WallClock()
    is_transmitter = file.link.role == "transmitter"
    log = _log.bind(link=registration.link) if view.is_view else _log
    # (1) The store, checked against its anchors; and the delivery server, if keys leave through one.
    database = open_database(view.path(file.store), kek, view.link_name)
    stack.callback(database.close)
    opened = open_store(database, view.path(file.anchor), SystemRandomness())
    delivery = None
    if file.delivery is None:
        require_nothing_under_way(database)
    else:
        delivery = DeliveryServer(file.delivery, kek, database, opened.keys)
        stack.callback(delivery.close)
        delivery.hand_over()  # before the peer is told again of what waits here
    commits = CommitRecords(
        database,
        opened.records,
        delivery.outbox if delivery else opened.keys,
        registration,
        is_transmitter=is_transmitter,
        now=wall.now,
        seal=opened.seal,
        hand_over=delivery.hand_over if delivery else None,
    )
    # (2) The module, and the threads.
    module = await _module(view, log, is_transmitter=is_transmitter)
    stack.push_async_callback(module.close)
    thread = ThreadPoolExecutor(1, "store")
    stack.callback(thread.shutdown)
    # (3) The runner. Public seeds come from another instance than secret bits (security.md 6).
    public = SystemRandomness()
    parts = EngineParts(
        opened.records,
        commits,
        Authenticator(opened.records, running_method(registration.mac)),
        public,
        clock,
        module,
        compute,
        thread,
        file.link.block_seconds,
        log,
    )
    where = str(view.directory)
    plan = LinkPlan(
        site=file.name,
        is_transmitter=is_transmitter,
        dial=settings.dial,
        listen=parse_address(file.link.listen, where) if file.link.listen else None,
        in_flight=file.link.in_flight,
        keys_max=file.link.keys_max,
    )
    trust = LinkAnchors(anchors.book, anchors.signer, anchors.trust, anchors.mark)
    doors = LinkDoors(registration, file.name, trust, opened.records, public, SystemRandomness(), wall)
    hooks = SupplyHooks(lambda: link.stored(), *_after_trouble(opened, delivery))  # noqa: PLW0108  - made below
    link = SiteLink(settings, LinkRunner(plan, registration, doors, parts, hooks), opened, delivery)
    stack.callback(link.close)
    link.chain_by(lambda epoch: doors.chain(_transcripts(commits, epoch)))
    # (4) What sweeps.
    steps: list[Callable[[], object]] = [link.trim]
    if delivery is not None:
        stocks = [(master, audience) for master, audience, here in settings.plan.stocks if here]
        steps.append(lambda: delivery.sweep(stocks, connected=link.runner.connected))
    elif not view.link_name:
        local = LocalKeys(database, opened.keys, SystemRandomness())
        steps.append(lambda: local.forget(WallClock().now()))
    if delivery is None:  # else its front ends do it before they open theirs
        await sweep_once(database, thread, set(), *steps)
    sweeper = asyncio.create_task(sweep(database, thread, *steps))
    stack.push_async_callback(end_tasks, [sweeper])
    return link


async def _module(view: SiteConfig, log: Any, *, is_transmitter: bool) -> Transmitter | Receiver:  # noqa: ANN401
    """Open the module. One of several that is away is waited for; a wrong name or setting is refused all the same."""
    entry = view.file.module

    async def opened() -> Transmitter | Receiver:
        return await open_module(entry.name, entry.settings, SystemRandomness(), is_transmitter=is_transmitter)

    try:
        return await opened()
    except TransportClosed as why:
        if not view.is_view:
            raise
        log.error("QKD module is away", reason=str(why))  # noqa: TRY400  - one line
        return LateModule(opened)


async def end_tasks(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their ends."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def trim_keys(keys: KeyRecords | PgKeys, plan: SupplyPlan, keys_max: int, ttl_s: float | None) -> None:
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


def _transcripts(commits: CommitRecords, epoch: int) -> dict[int, str]:
    return {block: str(report["transcript_sha256"]) for of, block, report in commits.committed_blocks() if of == epoch}
