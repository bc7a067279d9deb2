"""Refusals that are not answered as fast as they come."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["Rests"]

# Our choices.
FREE: Final = 8  # refusals of one caller that are answered at once
PER_S: Final = 50.0  # in the long run, over all its connections
LONGEST_S: Final = 1.0  # what Retry-After says


class Rests:
    """For each caller, when its next refusal is due. Meanwhile its connection is not read from; others' are."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def delay(self, caller: str, now: float) -> float:
        """Return after how many seconds a refusal of this caller is to be answered, and count it.

        ``caller``: a registered one, "" for all others together: as many are remembered as there are.
        """
        due = max(self._due.get(caller, 0.0), now) + 1 / PER_S
        ahead = due - now - FREE / PER_S
        self._due[caller] = min(due, now + FREE / PER_S + LONGEST_S)
        return min(max(0.0, ahead), LONGEST_S)

    async def rest(self, caller: str) -> None:
        """Wait before a refusal is answered."""
        seconds = self.delay(caller, asyncio.get_running_loop().time())
        if seconds:
            await asyncio.sleep(seconds)
