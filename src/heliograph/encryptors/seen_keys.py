"""Which keys an encryptor was given before: none is ever installed twice, its nonces or preshared keys are used."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["SeenKeys"]

# Our choice: key_IDs remembered to refuse one that a faulty key manager gives out twice (about 10 MB at the most).
_REMEMBERED: Final = 65536


class SeenKeys:
    """The key_IDs seen last; the oldest one is forgotten for each that is too many."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._order: deque[bytes] = deque()

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._known

    def add(self, key_id: bytes) -> None:
        """Remember a key_ID that is not among them."""
        self._known.add(key_id)
        self._order.append(key_id)
        if len(self._order) > _REMEMBERED:
            self._known.discard(self._order.popleft())
