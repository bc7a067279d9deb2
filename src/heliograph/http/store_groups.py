"""Calls for the store wait here while it is busy, and then go to it as one group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

__all__ = ["GROUP_MAX", "SETTLE_SECONDS", "RunGroup", "StoreGroups", "Unsettled"]

SETTLE_SECONDS = (
    1.0  # our choice: so long erased segment keys may stay in the file, for as many answers as one settling
)
GROUP_MAX = 64  # our choice: the link's own transactions wait for at most one group

_Result = TypeVar("_Result")

# Runs calls, and returns for each its result or its exception, when all are durable.
RunGroup = Callable[[Sequence[Callable[[], Any]]], Sequence[Any]]


class Unsettled(Protocol):
    """A store that leaves for later what no answer waits for: its file has erased bytes until its log is emptied."""

    @property
    def unsettled(self) -> bool:
        """Whether there is something to do."""

    def settle(self) -> None:
        """Do it. Raises nothing."""


class StoreGroups:
    """One group is with the store at a time; nobody waits for a group to fill.

    ``later``: is settled ``SETTLE_SECONDS`` after a group left something.
    """

    def __init__(self, executor: Executor, run: RunGroup, later: Unsettled | None = None) -> None:
        self._executor = executor
        self._run = run
        self._later = later
        self._timer: asyncio.TimerHandle | None = None
        self._queue: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._pump: asyncio.Task[None] | None = None

    async def run(self, call: Callable[[], _Result]) -> _Result:
        """Return what ``call`` returns, or raise what it raises, once its group is durable."""
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._queue.append((call, future))
        if self._pump is None:
            self._pump = asyncio.create_task(self._drain())
        return await future

    def close(self) -> None:
        """Leave what is not settled to the closing of the store."""
        self._later = None
        if self._timer is not None:
            self._timer.cancel()

    def _settle(self) -> None:
        self._timer = None
        if self._later is not None:
            self._executor.submit(self._later.settle)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                waiting = [self._queue.popleft() for _ in range(min(GROUP_MAX, len(self._queue)))]
                group = [entry for entry in waiting if not entry[1].done()]  # the others' callers are gone
                if not group:
                    continue
                outcomes: Sequence[Any]
                try:
                    outcomes = await loop.run_in_executor(self._executor, self._run, [call for call, _ in group])
                except Exception as error:  # noqa: BLE001  - whatever it was, every caller of the group is told
                    outcomes = [error] * len(group)
                for (_, future), outcome in zip(group, outcomes, strict=True):
                    if future.done():  # its caller is gone
                        continue
                    if isinstance(outcome, BaseException):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
                if self._later is not None and self._later.unsettled and self._timer is None:
                    self._timer = loop.call_later(SETTLE_SECONDS, self._settle)
        finally:
            self._pump = None
