"""Whether the store can be written again after it failed: asked of the disk, and not by everybody who connects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from heliograph.errors import StoreUnavailable, TransportClosed
from heliograph.ports import Clock

__all__ = ["StoreProof"]

_PAUSE_S = 1.0  # our choice: anyone may connect, and each proof writes a block's worth of bytes


class StoreProof:
    """After a store error a link takes no part until this holds again: each try would cost the peer its pads."""

    def __init__(self, clock: Clock, store: ThreadPoolExecutor, probe: Callable[[], None]) -> None:
        """Take what raises StoreUnavailable unless a block's worth of bytes can be written, and its thread."""
        self._clock = clock
        self._store = store
        self._probe = probe
        self._failure: str | None = None
        self._again = 0.0

    def failed(self, why: StoreUnavailable) -> None:
        """Note a failure."""
        self._failure = str(why)

    async def require(self) -> None:
        """Raise StoreUnavailable if it still fails, TransportClosed between proofs, which logs no line of its own."""
        if self._failure is None:
            return
        now = self._clock.now()
        if now < self._again:
            raise TransportClosed(f"store unavailable: {self._failure}")
        self._again = now + _PAUSE_S
        await asyncio.get_running_loop().run_in_executor(self._store, self._probe)
        self._failure = None
