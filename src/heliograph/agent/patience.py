"""A key source that is waited for so long and no longer: a silent key manager counts as one without a key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from heliograph.errors import KeySupplyError
from heliograph.ports import KeySource
from heliograph.types import DeliveredKey

__all__ = ["PatientKeySource"]


class PatientKeySource:
    """``source``, ``seconds`` at most for each key (``ports.KeySource``). A key that comes later is never used."""

    def __init__(self, source: KeySource, seconds: float) -> None:
        self._source = source
        self._seconds: Final = seconds

    async def get_key(self) -> DeliveredKey:
        """Fetch one fresh key as master. Raises KeySupplyError."""
        return await self._in_time(self._source.get_key())

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        """Fetch the key that the peer named, as slave. Raises KeySupplyError."""
        return await self._in_time(self._source.get_key_with_id(key_id))

    async def _in_time(self, asked: Awaitable[DeliveredKey]) -> DeliveredKey:
        try:
            async with asyncio.timeout(self._seconds):
                return await asked
        except TimeoutError:
            raise KeySupplyError(
                f"the key manager did not answer for {self._seconds:g} s: check that it runs, and the way to it"
            ) from None
