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

__all__ = ["SWEEP_S", "sweep"]

SWEEP_S = 5.0  # our choice

log = structlog.get_logger("heliograph.store")


async def sweep(database: Database, store: ThreadPoolExecutor, *steps: Callable[[], object]) -> None:
    """At once, and now and then, run ``steps`` on the store's thread, and empty the log: erased bytes leave the disk.

    At once, since a site that was down for longer than its keys may live has them still when its doors open.

    A step that fails does not keep the others from running. What nobody foresaw is told in one line for each place.
    """
    loop = asyncio.get_running_loop()
    told: set[str] = set()
    while True:
        for step in (*steps, database.checkpoint):
            try:
                with suppress(StoreUnavailable):  # whoever needs the store next is told
                    await loop.run_in_executor(store, step)
            except Exception as why:  # noqa: BLE001  - a row that somebody altered must not end the sweeping
                kind, at = type(why).__name__, place(why)  # its text might quote what stands in the row
                if f"{kind} {at}" not in told:
                    told.add(f"{kind} {at}")
                    log.error("internal error", where="sweep", kind=kind, at=at)  # noqa: TRY400
        await asyncio.sleep(SWEEP_S)
