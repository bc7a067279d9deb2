"""The codes of one-way reconciliation, built from a few numbers: no table of edges is stored or copied.

A code is a grid of ``rows`` by ``width`` blocks. Its columns' degrees follow ``SHARES``, evenly from left to right.
Columns of degree 2 form one path over the rows (no cycle among them, hence no pattern of few errors that they alone
hide); every other column takes the rows that have the fewest edges so far. A shift is drawn until it closes no cycle of
length 4. ``more`` further rows are kept back for frames that do not decode: each takes as many columns as a row has on
average, those with the fewest edges first. All draws come from one counter, so both sides build the same code.

The shares come from a search by density evolution of the decoder: ``benchmarks/ldpc_degrees.py`` makes the table. They
decide how much is disclosed, never whether a result is right: that is verified. ``VERSION`` names all of this, because
sites with different codes cannot work together.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from heliograph.kernels.ldpc import Code, Edge

__all__ = ["SHARES", "VERSION", "build"]

VERSION: Final = 2  # 1: mothers of which frames used the first columns
_TRIES: Final = 64  # small blocks have no shift left without a cycle: then the last one drawn is taken
_MASK: Final = (1 << 64) - 1

# (degree, share of the columns in 1/10000), by rising error rate.
SHARES: Final[tuple[tuple[tuple[int, int], ...], ...]] = (
    ((2, 100), (3, 8900), (8, 1000)),
    ((2, 274), (3, 5798), (7, 1608), (15, 2320)),
    ((2, 480), (3, 5494), (6, 1795), (18, 2232)),
    ((2, 616), (3, 5804), (7, 1662), (18, 1918)),
    ((2, 1106), (3, 5410), (7, 1905), (21, 1579)),
    ((2, 1518), (3, 5144), (6, 1522), (19, 1816)),
    ((2, 1716), (3, 5338), (6, 1174), (17, 1772)),
    ((2, 1566), (3, 6095), (8, 815), (18, 1524)),
    ((2, 2407), (3, 4534), (6, 1864), (21, 1196)),
    ((2, 2293), (3, 5761), (7, 764), (18, 1181)),
    ((2, 2798), (3, 5545), (6, 416), (16, 1241)),
)


def _draws(seed: int) -> Iterator[int]:
    """Yield 64-bit numbers: SplitMix64 [Steele, Lea, Flood 2014]."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
        yield mixed ^ mixed >> 31


def _degrees(shares: tuple[tuple[int, int], ...], rows: int, width: int) -> list[int]:
    """Return the degree of each column: up to every column the shares are met as nearly as whole ones allow."""
    given = dict.fromkeys((degree for degree, _ in shares), 0)
    pairs = 0
    out = []
    for j in range(1, width + 1):
        degree = max(shares, key=lambda one: one[1] * j - 10_000 * given[one[0]])[0]
        given[degree] += 1
        if degree == 2:
            pairs += 1
            degree = 2 if pairs < rows else 3  # the path is at its end
        out.append(min(degree, rows))
    return out


def _rows_of_columns(degrees: list[int], rows: int, draws: Iterator[int]) -> list[list[int]]:
    """Return the block rows that each column meets."""
    filled = [0] * rows
    pairs = 0
    out = []
    for degree in degrees:
        if degree == 2 and pairs + 1 < rows:
            chosen = [pairs, pairs + 1]
            pairs += 1
        else:
            chosen = sorted(range(rows), key=lambda r: (filled[r], next(draws)))[:degree]
        for r in chosen:
            filled[r] += 1
        out.append(chosen)
    return out


@lru_cache(maxsize=64)
def _edges(index: int, rows: int, more: int, width: int, z: int) -> tuple[tuple[Edge, ...], ...]:
    draws = _draws(((index << 16 | rows) << 16 | width) << 16 | z)
    degrees = _degrees(SHARES[index], rows, width)
    of_columns = _rows_of_columns(degrees, rows, draws)
    usual = -(-sum(degrees) // rows)
    for extra in range(rows, rows + more):
        ranked = sorted(range(width), key=lambda column: (len(of_columns[column]), next(draws)))
        for column in ranked[:usual]:
            of_columns[column].append(extra)
    found: list[list[Edge]] = [[] for _ in range(rows + more)]
    seen: set[tuple[int, int, int]] = set()  # two rows, and the difference of a column's shifts in them
    for column, chosen in enumerate(of_columns):
        placed: list[tuple[int, int]] = []
        for row in sorted(chosen):
            for _ in range(_TRIES):
                shift = next(draws) % z
                if not any((other, row, (shift - theirs) % z) in seen for other, theirs in placed):
                    break
            seen.update((other, row, (shift - theirs) % z) for other, theirs in placed)
            placed.append((row, shift))
            found[row].append((column, shift))
    return tuple(map(tuple, found))


@lru_cache(maxsize=64)
def build(index: int, rows: int, more: int, width: int, z: int, *, used: int) -> Code:
    """Return a code of ``rows`` rows, and as many of the ``more`` kept back as make ``used`` of them.

    ``index``: of the shares. However many are used, all are built: the first rows do not depend on it.
    """
    return Code(z, width, _edges(index, rows, more, width, z)[:used])
