"""The many keys of a one-time pad from a source that gives one at a time, perhaps slowly: a few under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from heliograph.errors import KeySupplyError
from heliograph.ports import KeySource
from heliograph.types import DeliveredKey

__all__ = ["AT_ONCE", "PadKeys"]

# Our choice: so many requests are under way. A key manager that needs 0.1 s for each gives 80 keys a second.
AT_ONCE: Final = 8


class PadKeys:
    """``establishment.qkd.ManyKeys`` over ``source``. ``seconds``: for all of them; what comes later is never used."""

    def __init__(self, source: KeySource, seconds: float) -> None:
        self._source = source
        self._seconds: Final = seconds

    async def get_keys(self, number: int) -> list[DeliveredKey]:
        """Fetch fresh keys as master. Raises KeySupplyError; keys that came by then are burnt."""
        return await self._all([self._source.get_key] * number)

    async def get_keys_with_ids(self, key_ids: Sequence[str]) -> list[DeliveredKey]:
        """Fetch the keys that the peer named, in that order. Raises KeySupplyError."""
        return await self._all([lambda one=one: self._source.get_key_with_id(one) for one in key_ids])  # type: ignore[misc]

    async def _all(self, asks: Sequence[Callable[[], Awaitable[DeliveredKey]]]) -> list[DeliveredKey]:
        got: dict[int, DeliveredKey] = {}
        waiting = iter(enumerate(asks))

        async def take() -> None:
            for at, ask in waiting:
                got[at] = await ask()

        takers = [asyncio.create_task(take()) for _ in range(min(AT_ONCE, len(asks)))]
        try:
            async with asyncio.timeout(self._seconds):
                await asyncio.gather(*takers)
        except TimeoutError:
            raise KeySupplyError(
                f"the key manager gave {len(got)} of the {len(asks)} keys of a one-time pad in {self._seconds:g} s, "
                f"{AT_ONCE} asked for at once: lower pad_keys, or see why it is slow; what came is burnt"
            ) from None
        finally:
            for taker in takers:
                taker.cancel()
            await asyncio.gather(*takers, return_exceptions=True)
        return [got[at] for at in range(len(asks))]
