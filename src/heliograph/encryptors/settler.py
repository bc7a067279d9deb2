"""Carries out the newest wish off the event loop: one at a time, in a thread of its own, and tells the loop what came.

A program or a daemon that we drive may hang; the site goes on meanwhile. A wish says how things must be, not what to
do, so one that was overtaken is skipped, one that failed is simply wished again, and nothing piles up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from heliograph.errors import EncryptorUnavailable

__all__ = ["Settler"]

_Wish = TypeVar("_Wish")
_Seen = TypeVar("_Seen")

_log = logging.getLogger("heliograph.agent")


class Settler(Generic[_Wish, _Seen]):
    """``work`` runs in the thread and raises EncryptorUnavailable; ``done`` runs on the loop with what came of it."""

    def __init__(
        self,
        name: str,
        work: Callable[[_Wish], _Seen],
        done: Callable[[_Wish, _Seen | EncryptorUnavailable], None],
    ) -> None:
        self._name: Final = name
        self._work = work
        self._done = done
        self._waiting: _Wish | None = None
        self._busy = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._orders: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        """Start the thread; results go to the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        # A daemon: a program that hangs for good must not keep the process from ending.
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a wish is being carried out, or waits."""
        return self._busy

    def wish(self, wish: _Wish) -> None:
        """Carry this out as soon as the one before it is done; a wish that still waits is forgotten."""
        if self._closed:
            return
        if self._busy:
            self._waiting = wish
            return
        self._busy = True
        self._idle.clear()
        self._orders.put(wish)

    async def close(self, seconds: float) -> bool:
        """Wait for what is under way, ``seconds`` at most; return whether everything was carried out."""
        finished = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            finished = False
        self._closed = True
        self._orders.put(None)
        return finished

    def _run(self) -> None:
        while (wish := self._orders.get()) is not None:
            result: _Seen | EncryptorUnavailable
            try:
                result = self._work(wish)
            except EncryptorUnavailable as why:
                result = why
            except Exception as why:  # noqa: BLE001  - whatever a driven program answers, the thread goes on
                _log.error("%s: %s", self._name, type(why).__name__)
                result = EncryptorUnavailable(f"internal error ({type(why).__name__}): please report it")
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
                self._loop.call_soon_threadsafe(self._take, wish, result)

    def _take(self, wish: _Wish, result: _Seen | EncryptorUnavailable) -> None:
        self._busy = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.wish(waiting)
        else:
            self._idle.set()
        if not self._closed:
            self._done(wish, result)
