"""Calls that wait at the same time commit together: one sync of the disk for all, each still all or none (ADR 0038)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from heliograph.errors import StoreUnavailable

__all__ = ["Groups", "run_group"]


class Groups(Protocol):
    """A store whose transactions can be made durable together."""

    def group(self) -> AbstractContextManager[None]:
        """Make the transactions of the block durable together. Raises StoreUnavailable: then nothing may leave.

        What nobody's answer waits for may be left undone (``Database.settle``).
        """


def run_group(database: Groups, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run ``calls`` and return, for each, its result or the exception that it raised, when all are on the disk.

    What a call changes, it changes in ``database`` alone, by whole transactions. If the disk fails, every call gets the
    StoreUnavailable: no result is told that may not be durable.
    """
    if len(calls) == 1:
        return [_outcome(calls[0])]
    try:
        with database.group():
            outcomes = [_outcome(call) for call in calls]
    except StoreUnavailable as error:
        return [error] * len(calls)
    return outcomes


def _outcome(call: Callable[[], Any]) -> Any:  # noqa: ANN401  - a result of any kind, or an exception
    try:
        return call()
    except Exception as error:  # noqa: BLE001  - one caller's refusal must not touch the others
        return error
