"""The codes of one-way reconciliation, built from a few numbers: no table of edges is stored or copied.

A code is a grid of ``rows`` by ``width`` blocks. Its columns' degrees follow ``SHARES``. Columns of degree 2 form one
path over the rows (no cycle among them, hence no pattern of few errors that they alone hide); the others are dealt rows
so that all rows get equally many edges. A shift is drawn until it closes no cycle of length 4.

For frames that do not decode, rows are split: the parity of half of a row's edges is told, and the row is then two of
half the length, which say more about each bit. The degrees of the columns stay as they are.

All draws come from one counter, so both sides build the same code. The shares come from a search by density evolution
of the decoder: ``benchmarks/ldpc_degrees.py`` makes the table. They decide how much is disclosed, never whether a
result is right: that is verified. ``VERSION`` names all of this, because sites with different codes cannot work
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from heliograph.kernels.ldpc import Code, Edge

__all__ = ["SHARES", "VERSION", "Shares", "build", "rows_to_split"]

VERSION: Final = 2  # 1: mothers of which frames used the first columns
_TRIES: Final = 16  # small blocks have no shift left without a cycle: then the last one drawn is taken
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Shares:
    """For error rates about ``ppm`` / 10^6: ``degrees``, each with its share of the columns in 1/10000.

    ``efficiency``: parities over the entropy of the errors, in 1/1000, with which frames of 10^6 bits decode.
    """

    ppm: int
    efficiency: int
    degrees: tuple[tuple[int, int], ...]


SHARES: Final[tuple[Shares, ...]] = (
    Shares(1000, 1320, ((2, 139), (3, 4973), (6, 1757), (10, 3130))),
    Shares(2000, 1230, ((2, 249), (3, 5324), (6, 1749), (11, 2678))),
    Shares(3500, 1200, ((2, 379), (3, 5221), (6, 1634), (13, 2766))),
    Shares(5000, 1170, ((2, 413), (3, 5254), (6, 1970), (15, 2363))),
    Shares(7000, 1160, ((2, 670), (3, 5357), (6, 1529), (14, 2443))),
    Shares(10000, 1145, ((2, 890), (3, 5083), (5, 1551), (14, 2475))),
    Shares(13000, 1140, ((2, 1001), (3, 5387), (8, 2453), (24, 1159))),
    Shares(17000, 1140, ((2, 1215), (3, 5169), (4, 1043), (13, 2573))),
    Shares(22000, 1135, ((2, 1657), (3, 5323), (6, 773), (13, 2247))),
    Shares(30000, 1125, ((2, 2097), (3, 5055), (6, 726), (12, 2122))),
    Shares(40000, 1120, ((2, 1922), (3, 5493), (8, 1464), (19, 1121))),
    Shares(50000, 1120, ((2, 2138), (3, 5510), (7, 915), (16, 1437))),
    Shares(65000, 1115, ((2, 3218), (3, 4504), (9, 2178), (22, 100))),
    Shares(85000, 1110, ((2, 3573), (3, 4390), (9, 1937), (18, 100))),
    Shares(110000, 1100, ((2, 3461), (3, 4574), (6, 1015), (17, 950))),
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
    """Return the degree of each column: the shares as nearly as whole columns allow, low degrees first."""
    out: list[int] = []
    share_so_far = 0
    for degree, share in shares:
        share_so_far += share
        number = share_so_far * width // 10_000 - len(out)
        if degree == 2:
            number = min(number, rows - 1)  # the path is at its end; the others get what is left
        out += [min(degree, rows)] * number
    return out + [min(shares[1][0], rows)] * (width - len(out))


def _rows_of_columns(degrees: list[int], rows: int, draws: Iterator[int]) -> list[list[int]]:
    """Return the block rows that each column meets: beside the path, rows are dealt out from shuffled decks of all.

    The columns come in any order, so that rows differ in how many columns of high degree they meet: with equally many
    in all, codes decode later.
    """
    path = degrees.count(2)
    out = [[first, first + 1] for first in range(path)]
    on_path = Counter(row for column in out for row in column)
    deck = _shuffled((row for row in range(rows) for _ in range(2 - on_path[row])), draws) if path else []
    for degree in _shuffled(degrees[path:], draws):
        chosen: list[int] = []
        passed_over: list[int] = []  # a column meets a row once
        while len(chosen) < degree:
            if not deck:
                deck = _shuffled(range(rows), draws)
            row = deck.pop()
            (passed_over if row in chosen else chosen).append(row)
        deck += passed_over
        out.append(chosen)
    return out


def _shuffled(items: Iterable[int], draws: Iterator[int]) -> list[int]:
    out = list(items)
    for i in range(len(out) - 1, 0, -1):
        j = next(draws) % (i + 1)
        out[i], out[j] = out[j], out[i]
    return out


def rows_to_split(rows: int, number: int) -> list[int]:
    """Return the rows that are split first, ``number`` of them; at any number they lie about evenly."""
    return sorted(range(rows), key=lambda row: int(f"{row:016b}"[::-1], 2))[:number]  # by their bits, lowest first


@lru_cache(maxsize=64)
def _edges(index: int, rows: int, width: int, z: int) -> tuple[tuple[Edge, ...], ...]:
    draws = _draws(((index << 16 | rows) << 16 | width) << 16 | z)
    degrees = _degrees(SHARES[index].degrees, rows, width)
    found: list[list[Edge]] = [[] for _ in range(rows)]
    seen: set[tuple[int, int, int]] = set()  # two rows, and the difference of a column's shifts in them
    for column, chosen in enumerate(_rows_of_columns(degrees, rows, draws)):
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
def build(index: int, rows: int, width: int, z: int, *, split: int = 0) -> Code:
    """Return the code of ``SHARES[index]``, with so many rows split.

    The half that is told of each split row stands behind all rows, in the order of ``rows_to_split``; the other half is
    in the row's place.
    """
    edges = list(_edges(index, rows, width, z))
    degrees = Counter(column for row in edges for column, _ in row)
    for row in rows_to_split(rows, split):
        ranked = sorted(edges[row], key=lambda edge: (degrees[edge[0]], edge[0]))  # both halves alike in degrees
        edges.append(tuple(sorted(ranked[::2])))
        edges[row] = tuple(sorted(ranked[1::2]))
    return Code(z, width, tuple(edges))
