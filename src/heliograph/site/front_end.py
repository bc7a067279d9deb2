"""A front end: a process that hands out a site's keys from the delivery server, one of several beside each other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from heliograph.errors import ConfigurationError, RollbackDetected, StoreUnavailable
from heliograph.http.callers import CertificateCallers
from heliograph.http.server import KmeServer
from heliograph.kme.supply import Supply
from heliograph.ports import Vault
from heliograph.site.audit import AuditLog, check_approver
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.config import SiteConfig, parse_address
from heliograph.site.delivery_entry import DeliveryEntry
from heliograph.site.kme_doors import follow_boundary, kme_tls
from heliograph.site.live_settings import site_reloads
from heliograph.site.site_supply import make_supply
from heliograph.storage.database import Database
from heliograph.storage.front_end import FrontEnd
from heliograph.storage.group_commit import run_group
from heliograph.storage.pg_keys import PgKeys
from heliograph.storage.pg_reopen import reopen_server
from heliograph.storage.pg_server import PgServer
from heliograph.vault.anchor import FileAnchor

__all__ = ["Tidier", "delivery_of", "reopen_front_end", "run_front_end"]

_TIDY_S = 0.5  # our choice: how soon a block's key reaches this front end, and how soon it is erased here
_EXPIRE_S = 60.0  # our choice: a look at every key, which the link's process does more often
_LINK_S = 15  # our choice: three sweeps of the link's process

_log = logging.getLogger("heliograph.front-end")


def delivery_of(config: SiteConfig) -> DeliveryEntry:
    """Return the site file's [delivery]. Raises ConfigurationError if there is none."""
    if config.file.delivery is None:
        raise ConfigurationError(
            f"{config.toml}: there is no [delivery], so the site hands out its keys itself; this is for a site with a "
            "delivery server: add the table as docs/how-to/postgresql.md says"
        )
    return config.file.delivery


async def run_front_end(
    config: SiteConfig,
    kek: Vault,
    name: str,
    ready: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
    reload: asyncio.Event,
    log_level: Callable[[str | None], None] = lambda _: None,
) -> None:
    """Serve until ``stop`` is set; each ``reload`` reads the configuration anew. ``log_level``: sets what is logged.

    While the server cannot be used every request is answered 503. Raises ConfigurationError, and RollbackDetected as
    soon as the server turns out to be an old one.
    """
    delivery = delivery_of(config)
    entry = delivery.front_end(name)
    tls = kme_tls(config)
    async with AsyncExitStack() as stack:
        database, front_end = _open_own(config, kek, delivery, name)
        stack.callback(database.close)
        server = PgServer(delivery.server_entry(), front_end.greet)
        stack.callback(server.close)
        reloads = site_reloads(config, f"front end {name}")
        keys = PgKeys(server, front_end)
        tidier = Tidier(server, front_end, keys, lambda: reloads.config.file.kme.key_ttl_s)
        await asyncio.to_thread(tidier.once)
        supply = _supply(config, keys, server)
        door = KmeServer(
            supply,
            CertificateCallers(config.boundary().boundary),
            config.boundary().boundary.networks,
        )
        door.commit_together(partial(run_group, server))
        await door.start(*parse_address(entry.listen, "[delivery] listen"), tls)
        stack.push_async_callback(door.close)
        # The supply first: a connection of an SAE that it does not serve any more is ended by the door.
        reloads.add(lambda fresh: _supply(fresh, keys, server), supply.follow)
        follow_boundary(reloads, door)
        reloads.add(lambda fresh: fresh.file.log_level, log_level)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(work) for work in (tidier.run(), reloads.watch(reload), stop.wait())
        ]
        stack.push_async_callback(_end, tasks)
        stack.push_async_callback(reloads.close)  # before the door closes: no reload opens it again
        await ready()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


def reopen_front_end(config: SiteConfig, kek: Vault, name: str, approver: str) -> int:
    """Destroy every key in the server and let ``name`` serve it again, by an operator's word. Returns how many keys.

    Raises ConfigurationError, also while the front end runs; StoreUnavailable.
    """
    check_approver(approver)
    delivery, audit = delivery_of(config), AuditLog(config.audit)
    directory = config.path(delivery.front_end(name).directory)
    database = Database(directory / "store" / "front.db", kek)
    server = PgServer(delivery.server_entry())
    try:
        audit.append("delivery server reopened", approver, {"front_end": name})
        FileAnchor.adopt(directory / "anchor")
        destroyed = reopen_server(server, kek, name, FileAnchor(directory / "anchor"), WallClock().now())
        audit.append("delivery server's keys destroyed", approver, {"front_end": name, "keys": destroyed})
        return destroyed
    finally:
        server.close()
        database.close()


def _open_own(config: SiteConfig, kek: Vault, delivery: DeliveryEntry, name: str) -> tuple[Database, FrontEnd]:
    directory = config.path(delivery.front_end(name).directory)
    anchor = FileAnchor(directory / "anchor")
    database = Database(directory / "store" / "front.db", kek)
    try:
        return database, FrontEnd(name, delivery.names, database, anchor, delivery.standby)
    except BaseException:
        database.close()
        raise


def _supply(config: SiteConfig, keys: PgKeys, server: PgServer) -> Supply:
    return make_supply(config, keys, (MonotonicClock(), WallClock()), lambda _: _link_is_up(server))


def _link_is_up(server: PgServer) -> bool:
    """Tell whether the link's process said lately that its peer is there."""
    with server.reading() as cursor:
        found = cursor.execute(
            "SELECT link_connected AND link_at > now() - make_interval(secs => %s) FROM store", (_LINK_S,)
        ).fetchone()
    return bool(found and found[0])


class Tidier:
    """Fetches keys of new blocks and erases those of empty ones, all the time; says in one line what keeps it off.

    ``ttl_s``: for how long a key may live, None for ever. The link's process ends it by that too, as long as it runs.
    """

    def __init__(self, server: PgServer, front_end: FrontEnd, keys: PgKeys, ttl_s: Callable[[], float | None]) -> None:
        self._server = server
        self._front_end = front_end
        self._keys = keys
        self._ttl_s = ttl_s
        self._monotonic, self._wall = MonotonicClock(), WallClock()
        self._expire_at = float("-inf")
        self._said = ""

    async def run(self) -> None:
        """Do it again and again. Raises as ``once``."""
        while True:
            await asyncio.sleep(_TIDY_S)
            await asyncio.to_thread(self.once)

    def once(self) -> None:
        """Do it once. Raises RollbackDetected and ConfigurationError; an absent server is waited for."""
        try:
            with self._server.transaction() as cursor:
                self._front_end.tidy(cursor)
            self._expire()
            with self._server.reading() as cursor:
                self._front_end.require_unfenced(cursor)
                self._front_end.require(cursor)
        except RollbackDetected:
            raise
        except StoreUnavailable as why:
            self._say(str(why))
        else:
            self._say("")

    def _expire(self) -> None:
        ttl_s = self._ttl_s()
        if ttl_s is not None and self._monotonic.now() >= self._expire_at:
            now = self._wall.now()
            self._keys.expire(now - ttl_s, now, grace=ttl_s)  # as ``site.site`` does it
            self._expire_at = self._monotonic.now() + _EXPIRE_S

    def _say(self, why: str) -> None:
        if why != self._said:
            _log.warning("%s", f"no key is handed out: {why}" if why else "keys are handed out again")
        self._said = why


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
