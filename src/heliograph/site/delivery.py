"""Delivery inside this process: a consumer in the same unit takes keys from the supply by a call, over no network.

    source = InProcessKeySource(supply, boundary, "sae-a", "sae-b")
    key = await source.get_key()

The rules are those of every other way: registered pairs, the boundary, burn before use (a key is durably gone from
the store before the call returns).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from heliograph.kme.boundary import Boundary, Way
from heliograph.kme.supply import Supply, SupplyStatus
from heliograph.types import DeliveredKey

__all__ = ["InProcessDelivery", "InProcessKeySource"]


class InProcessDelivery:
    """The calls themselves, for one pair of SAEs. Raises NotPermitted if the boundary lists another way or none."""

    def __init__(self, supply: Supply, boundary: Boundary, own_sae: str, peer_sae: str) -> None:
        boundary.check(own_sae, Way.IN_PROCESS)
        supply.authorise(own_sae, peer_sae)
        self._supply: Final = supply
        self._own, self._peer = own_sae, peer_sae

    def status(self) -> SupplyStatus:
        """Tell how many keys could be fetched now. Raises StoreUnavailable."""
        return self._supply.status(self._own, self._peer)

    def get_keys(self, number: int, size_bits: int | None = None) -> list[DeliveredKey]:
        """Take fresh keys as master, of the pair's first size if none is named.

        Raises InsufficientKeys, RequestRefused or StoreUnavailable.
        """
        keys = self._supply.enc_keys(self._own, self._peer, number, size_bits=size_bits)
        return [DeliveredKey(k.key_id, k.material) for k in keys]

    def get_keys_with_ids(self, key_ids: Sequence[str]) -> list[DeliveredKey]:
        """Take the keys that the peer named, all or none. Raises KeyNotFound, NotPermitted or StoreUnavailable."""
        ids = [key_id.lower() for key_id in key_ids]
        return [DeliveredKey(k.key_id, k.material) for k in self._supply.dec_keys(self._own, self._peer, ids)]


class InProcessKeySource:
    """``ports.KeySource`` over the supply of this process. ``close`` it when done."""

    def __init__(
        self, supply: Supply, boundary: Boundary, own_sae: str, peer_sae: str, size_bits: int | None = None
    ) -> None:
        """Take the pair; ``size_bits``: of fresh keys, the pair's first size if None.

        Raises NotPermitted or RequestRefused, as ``InProcessDelivery``.
        """
        self._delivery = InProcessDelivery(supply, boundary, own_sae, peer_sae)
        self._size_bits = size_bits
        self._store = ThreadPoolExecutor(1, "in-process delivery")

    async def get_key(self) -> DeliveredKey:
        """Take one fresh key as master. Raises InsufficientKeys or StoreUnavailable."""
        (key,) = await self._run(lambda: self._delivery.get_keys(1, self._size_bits))
        return key

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        """Take the key that the peer named, as slave. Raises KeyNotFound, NotPermitted or StoreUnavailable."""
        (key,) = await self._run(lambda: self._delivery.get_keys_with_ids([key_id]))
        return key

    async def close(self) -> None:
        """End the thread that talks to the store."""
        self._store.shutdown(wait=False)

    async def _run(self, call: Callable[[], list[DeliveredKey]]) -> list[DeliveredKey]:
        return await asyncio.get_running_loop().run_in_executor(self._store, call)
