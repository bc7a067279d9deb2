"""Randomness that a test can repeat. Never a site's: a site always draws fresh bits (security.md 6)."""

from __future__ import annotations

import hashlib

__all__ = ["SeededRandom"]


class SeededRandom:
    """SHAKE-256 over a seed and a counter; the same seed and the same draws give the same bytes."""

    kind = "seeded (testing)"

    def __init__(self, seed: int, name: str = "") -> None:
        self._prefix = f"heliograph testing {seed} {name} ".encode()
        self._draws = 0

    def draw(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        self._draws += 1
        return hashlib.shake_256(self._prefix + str(self._draws).encode()).digest(size)
