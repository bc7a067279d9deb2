"""Two key managers in memory that agree on their keys: a pair of KeySource for tests of key consumers."""

from __future__ import annotations

import secrets
import uuid

from heliograph.errors import InsufficientKeys, KeyNotFound
from heliograph.types import DeliveredKey

__all__ = ["MemoryKeyManagers", "MemoryKeySource"]


class MemoryKeyManagers:
    """A shared stock of keys; each key is delivered once to the master and once to the slave.

    ``stock``: keys still to give out as master, changed by a test at will; ``named``: key_IDs in delivery order.
    """

    def __init__(self, stock: int = 1_000_000) -> None:
        self.stock = stock
        self.named: list[str] = []
        self._awaited: dict[str, bytes] = {}
        self.master = MemoryKeySource(self)
        self.slave = MemoryKeySource(self)

    def take(self) -> DeliveredKey:
        """Deliver a fresh key to the master. Raises InsufficientKeys."""
        if self.stock <= 0:
            raise InsufficientKeys("no key is left for this pair of SAEs: wait for the link to make more")
        self.stock -= 1
        key = DeliveredKey(str(uuid.uuid4()), secrets.token_bytes(32))
        self.named.append(key.key_id)
        self._awaited[key.key_id] = key.material
        return key

    def take_named(self, key_id: str) -> DeliveredKey:
        """Deliver a named key to the slave, once. Raises KeyNotFound."""
        material = self._awaited.pop(key_id, None)
        if material is None:
            raise KeyNotFound(f"key_ID {key_id} is not stored for this SAE: unknown or delivered already")
        return DeliveredKey(key_id, material)


class MemoryKeySource:
    """One site's view (ports.KeySource)."""

    def __init__(self, managers: MemoryKeyManagers) -> None:
        self._managers = managers

    async def get_key(self) -> DeliveredKey:
        """Fetch one fresh key as master. Raises InsufficientKeys."""
        return self._managers.take()

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        """Fetch the key that the peer named, as slave. Raises KeyNotFound."""
        return self._managers.take_named(key_id)
