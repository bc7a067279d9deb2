"""One line of a benchmark's results, with the fields that all stages share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["best_seconds", "row"]


def row(
    name: str,
    n_bits: int,
    seconds: float,
    *,
    threads: int = 1,
    qber: float | None = None,
    efficiency: float | None = None,
    **more: object,
) -> dict[str, Any]:
    """Return a result; ``mbps`` counts input bits of the stage, in 1e6 bits per second. ``more`` is added as it is."""
    shared = {
        "name": name,
        "n_bits": n_bits,
        "qber": qber,
        "efficiency": efficiency,
        "mbps": n_bits / seconds / 1e6,
        "seconds": seconds,
        "threads": threads,
    }
    return shared | more


def best_seconds(work: Callable[[], object], at_least_s: float = 0.05) -> float:
    """Return the shortest of the runs of ``work`` that fit in ``at_least_s`` seconds; at least three."""
    best, spent, runs = float("inf"), 0.0, 0
    while runs < 3 or spent < at_least_s:
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        best, spent, runs = min(best, seconds), spent + seconds, runs + 1
    return best
