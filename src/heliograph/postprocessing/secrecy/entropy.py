"""The binary entropy function."""

from __future__ import annotations

import math

__all__ = ["binary_entropy"]


def binary_entropy(x: float) -> float:
    """Return h(x) = -x log2 x - (1-x) log2(1-x) in bits; 0 at both ends. Raises ValueError outside [0, 1]."""
    if not 0 <= x <= 1:
        raise ValueError(f"{x} is not a probability")
    if x in (0, 1):
        return 0.0
    return -x * math.log2(x) - (1 - x) * math.log1p(-x) / math.log(2)
