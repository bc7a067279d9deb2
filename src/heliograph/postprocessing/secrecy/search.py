"""A maximiser for a few bounded variables: a scan of the whole box, and differential evolution from the best of it.

Storn and Price, J. Global Optim. 11, 341 (1997), best/1/bin. The counts of a block are whole numbers, so its length has
small steps in every direction: a climb along slopes stops at the first of them, a crowd that mixes does not. The dice
are a fixed sequence of numbers: no randomness is drawn, and the same question has the same answer. (On another
processor numpy may round a logarithm differently, and the search may end at other light that is as good.) It asks for
many points at a time, which is what makes a vectorised score cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["DEFAULT_EFFORT", "Effort", "maximise"]

Floats = npt.NDArray[np.float64]
Score = Callable[[Floats], Floats]

CROSSING: Final = 0.7  # chance that a variable is taken from the mutant
STEP: Final = (0.5, 1.0)  # how much of a difference a mutant is moved by, drawn anew for each


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried: ``scan`` points over the box; the ``crowd`` best evolve for at most ``generations``.

    They end earlier when all their values agree to ``tolerance`` of the best.
    """

    scan: int = 2048
    crowd: int = 80
    generations: int = 300
    tolerance: float = 1e-5


DEFAULT_EFFORT: Final = Effort()


def maximise(
    score: Score, dimensions: int, starts: Sequence[Sequence[float]] = (), effort: Effort = DEFAULT_EFFORT
) -> tuple[float, ...]:
    """Return the best point found in the unit cube of so many ``dimensions``.

    ``score`` takes an array of points, one a row, and returns a number for each, minus infinity where there is none.
    ``starts`` join the scan.
    """
    points = _spread(effort.scan, dimensions)
    if starts:
        given = np.clip(np.asarray(starts, dtype=np.float64).reshape(-1, dimensions), 0, 1)
        points = np.concatenate([given, points])
    values = score(points)
    best = np.argsort(-values, kind="stable")[: effort.crowd]
    crowd, values = points[best], values[best]
    everyone = np.arange(len(crowd))
    for generation in range(effort.generations):
        leader = values.argmax()
        if np.isneginf(values[leader]):
            break  # nothing in the box has a value
        if values[leader] - values.min() <= effort.tolerance * abs(values[leader]):
            break
        tried = _offspring(crowd, crowd[leader], _dice(generation, (len(crowd), dimensions + 4)))
        found = score(tried)
        better = everyone[found >= values]
        crowd[better], values[better] = tried[better], found[better]
    return tuple(float(x) for x in crowd[values.argmax()])


def _offspring(crowd: Floats, leader: Floats, dice: Floats) -> Floats:
    """Return for each of the crowd its crossing with a mutant: the leader, moved by the difference of two others."""
    size, dimensions = crowd.shape
    everyone = np.arange(size)
    first = (everyone + 1 + (dice[:, 0] * (size - 1)).astype(np.intp)) % size
    second = (first + 1 + (dice[:, 1] * (size - 1)).astype(np.intp)) % size
    step = STEP[0] + (STEP[1] - STEP[0]) * dice[:, 2:3]
    mutant = leader + step * (crowd[first] - crowd[second])
    crossed = dice[:, 4:] < CROSSING
    crossed[everyone, (dice[:, 3] * dimensions).astype(np.intp)] = True  # at least one
    found: Floats = np.clip(np.where(crossed, mutant, crowd), 0, 1)
    return found


def _spread(count: int, dimensions: int) -> Floats:
    """Return points spread evenly over the unit cube (Kronecker): multiples of the powers of 1/g, g^(d+1) = g + 1."""
    g = 2.0
    for _ in range(60):
        g = (1 + g) ** (1 / (dimensions + 1))
    found: Floats = (0.5 + np.outer(np.arange(1, count + 1), g ** -np.arange(1.0, dimensions + 1))) % 1
    return found


def _dice(generation: int, shape: tuple[int, int]) -> Floats:
    """Return numbers in [0, 1) that look thrown and are the same each time: SplitMix64 of 1, 2, 3, ..."""
    count = shape[0] * shape[1]
    x = np.arange(generation * count + 1, (generation + 1) * count + 1, dtype=np.uint64)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Floats = ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53
    return found
