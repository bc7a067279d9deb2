"""The codes of one-way reconciliation, built from a few numbers: no table of edges is stored or copied.

A mother code is a grid of ``rows`` by ``columns`` blocks. Its columns' degrees follow ``degrees`` evenly from left to
right, so that a frame may use only the first ``width`` columns: it then has more parities for each bit, in fine steps,
and no bit is spent on it. Columns of degree 2 form one path over the rows (no cycle among them, hence no pattern of few
errors that they alone hide); every other column takes the rows that have the fewest edges so far. A shift is drawn
until it closes no cycle of length 4. ``more`` further rows, over columns of low degree, are kept back for frames that
do not decode. All draws come from one counter, so both sides build the same code.

The degrees come from a random search by density evolution of the decoder, flooding, which is not kept here; offsets and
efficiencies were then set by decoding five frames at each of a few settings, for some mothers with other degrees than
these. They decide how much is disclosed, never whether a result is right: that is verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from heliograph.kernels.ldpc import Code, Edge

__all__ = ["MOTHERS", "WIDTH_LEAST", "Mother", "build"]

_TRIES: Final = 64  # small blocks have no shift left without a cycle: then the last one drawn is taken
_MASK: Final = (1 << 64) - 1
WIDTH_LEAST: Final = 0.5  # of the columns; a narrower frame belongs to the next mother


@dataclass(frozen=True, slots=True)
class Mother:
    """``degrees``: shares of the columns, in 1/10000; ``offset``: of the decoder; ``more``: rows kept back.

    ``efficiency``: parities over the entropy of the errors at which five frames of five decoded, about.
    """

    rows: int
    columns: int
    more: int
    degrees: tuple[tuple[int, int], ...]
    offset: int
    efficiency: float


MOTHERS: Final[tuple[Mother, ...]] = (
    Mother(8, 640, 1, ((2, 13), (3, 5757), (5, 888), (13, 3342)), 1, 1.7),
    Mother(12, 594, 2, ((2, 234), (3, 6049), (6, 1191), (13, 2526)), 1, 1.45),
    Mother(16, 496, 2, ((2, 175), (3, 5330), (4, 2061), (13, 2434)), 1, 1.55),
    Mother(20, 400, 3, ((2, 387), (3, 6539), (7, 920), (14, 2154)), 2, 1.42),
    Mother(24, 320, 4, ((2, 872), (3, 5911), (6, 1254), (13, 1963)), 2, 1.32),
    Mother(32, 304, 5, ((2, 595), (3, 6259), (5, 1577), (16, 1569)), 2, 1.28),
    Mother(40, 272, 6, ((2, 1283), (3, 4967), (4, 1806), (13, 1944)), 2, 1.25),
    Mother(48, 240, 7, ((2, 1135), (3, 6037), (6, 1531), (17, 1297)), 2, 1.25),
    Mother(64, 240, 10, ((2, 911), (3, 6551), (4, 1177), (16, 1361)), 2, 1.23),
    Mother(80, 232, 12, ((2, 1197), (3, 5991), (4, 1782), (17, 1030)), 1, 1.25),
    Mother(96, 218, 14, ((2, 1211), (3, 7337), (4, 264), (14, 1188)), 1, 1.25),
)


def _draws(seed: int) -> Iterator[int]:
    """Yield 64-bit numbers: SplitMix64 [Steele, Lea, Flood 2014]."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
        yield mixed ^ mixed >> 31


def _degrees(mother: Mother) -> list[int]:
    """Return the degree of each column: at every width the shares are met as nearly as whole columns allow."""
    given = dict.fromkeys((degree for degree, _ in mother.degrees), 0)
    out = []
    for j in range(1, mother.columns + 1):
        degree = max(mother.degrees, key=lambda one: one[1] * j - 10_000 * given[one[0]])[0]
        if degree == 2 and given[2] >= mother.rows - 1:  # the path is at its end
            degree = 3
        given[degree] = given.get(degree, 0) + 1
        out.append(degree)
    return out


def _rows_of_columns(mother: Mother, draws: Iterator[int]) -> list[list[int]]:
    """Return the block rows that each column meets."""
    filled, spare = [0] * mother.rows, [0] * mother.more
    pairs = 0
    degrees = _degrees(mother)
    low = [degree <= 3 for degree in degrees]
    share = mother.more * sum(degrees) / mother.rows / max(sum(low), 1)
    owed = 0.0
    out = []
    for degree, is_low in zip(degrees, low, strict=True):
        if degree == 2:
            chosen = [pairs, pairs + 1]
            pairs += 1
        else:
            ranked = sorted(range(mother.rows), key=lambda r: (filled[r], next(draws)))
            chosen = ranked[:degree]
        for r in chosen:
            filled[r] += 1
        if is_low and mother.more:
            owed += share
            kept = sorted(range(mother.more), key=lambda r: (spare[r], next(draws)))[: min(int(owed), mother.more)]
            owed -= len(kept)
            for r in kept:
                spare[r] += 1
            chosen = chosen + [mother.rows + r for r in kept]
        out.append(sorted(chosen))
    return out


@lru_cache(maxsize=32)
def _edges(index: int, z: int) -> tuple[tuple[Edge, ...], ...]:
    mother = MOTHERS[index]
    draws = _draws(index << 16 | z)
    rows: list[list[Edge]] = [[] for _ in range(mother.rows + mother.more)]
    seen: set[tuple[int, int, int]] = set()  # two rows, and the difference of a column's shifts in them
    for column, chosen in enumerate(_rows_of_columns(mother, draws)):
        placed: list[tuple[int, int]] = []
        for row in chosen:
            for _ in range(_TRIES):
                shift = next(draws) % z
                if not any((other, row, (shift - theirs) % z) in seen for other, theirs in placed):
                    break
            seen.update((other, row, (shift - theirs) % z) for other, theirs in placed)
            placed.append((row, shift))
            rows[row].append((column, shift))
    return tuple(tuple(row) for row in rows)


@lru_cache(maxsize=32)
def build(index: int, z: int, width: int, *, extended: bool) -> Code:
    """Return the first ``width`` columns of mother ``index`` lifted by ``z``; ``extended``: with the rows kept back."""
    mother = MOTHERS[index]
    edges = _edges(index, z)[: mother.rows + (mother.more if extended else 0)]
    return Code(z, width, tuple(tuple(edge for edge in row if edge[0] < width) for row in edges))
