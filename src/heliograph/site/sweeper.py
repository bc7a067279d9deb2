"""What a running store has done to it now and then, whatever stands in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from heliograph.errors import StoreUnavailable
from heliograph.site.bugs import place
from heliograph.storage.database import Database

__all__ = ["SWEEP_S", "sweep", "sweep_once"]

SWEEP_S = 5.0  # our choice

log = structlog.get_logger("heliograph.store")


async def sweep(database: Database, store: ThreadPoolExecutor, *steps: Callable[[], object]) -> None:
    """Now and then run ``steps`` on the store's thread, and empty the log, so that erased bytes leave the disk soon."""
    told: set[str] = set()
    while True:
        await sweep_once(database, store, told, *steps)
        await asyncio.sleep(SWEEP_S)


async def sweep_once(
    database: Database, store: ThreadPoolExecutor, told: set[str], *steps: Callable[[], object]
) -> None:
    """Do it once: before the doors open, since a site that was down may have keys still whose time is over.

    A step that fails does not keep the others from running. What nobody foresaw is told in one line for each place,
    unless it is in ``told``.
    """
    for step in (*steps, database.checkpoint):
        try:
            with suppress(StoreUnavailable):  # whoever needs the store next is told
                await asyncio.get_running_loop().run_in_executor(store, step)
        except Exception as why:  # noqa: BLE001  - its text might quote key material
            kind, at = type(why).__name__, place(why)
            if f"{kind} {at}" not in told:
                told.add(f"{kind} {at}")
                log.error("internal error", where="sweep", kind=kind, at=at)  # noqa: TRY400
