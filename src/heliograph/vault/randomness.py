"""The operating system's generator."""

from __future__ import annotations

import os

__all__ = ["SystemRandomness"]


class SystemRandomness:
    """Bits that rest on the operating system's generator; so every report says ``randomness: computational``."""

    kind = "computational"

    def draw(self, size: int) -> bytes:
        """Return ``size`` fresh bytes."""
        return os.urandom(size)
