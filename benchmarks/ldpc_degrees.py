"""Search the degrees of the one-way codes by density evolution: makes the table ``SHARES`` in kernels/ldpc_codes.py.

    python benchmarks/ldpc_degrees.py [STEPS] [RATE ...]

For each error rate: which shares of the columns have which degrees, so that endless random codes decode at the lowest
efficiency f with bounded work. What is followed is the distribution of the decoder's messages, iteration by iteration,
with its unit, its largest size and its roundings; all rows at once (flooding), where the decoder takes one after the
other and needs half the iterations. ``WORK`` is iterations times edges of a bit: the decoder's time.

The search is a random walk from one start that keeps what is better, and lowers f by a step as soon as the work allows;
it draws from a fixed seed, so the same table comes out where numpy's transforms round alike. Prints for each rate the
lowest f, the line of the table, and the iterations at a few f.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import numpy as np

from heliograph.kernels.ldpc import LARGEST
from heliograph.postprocessing.secrecy.entropy import binary_entropy

RATES = (0.001, 0.002, 0.0035, 0.005, 0.007, 0.01, 0.013, 0.017, 0.022, 0.03, 0.04, 0.05, 0.065, 0.085, 0.11)
WORK = 320
UNIT = math.log(2) / 2  # of a message
FINE = 4  # sums over a check are followed in quarters of it
CERTAIN = 1e-6  # share of wrong bits at which a code counts as decoded
ROW_MOST = 480  # edges of a row
LENGTH = 2048  # of the transforms that add messages at a bit

_SIZES = FINE * LARGEST + 1


def _two_at_a_check() -> np.ndarray:
    """Return the size that two sizes allow a third bit, in quarters; the largest size is certainty."""
    x = np.arange(_SIZES) * UNIT / FINE
    a, b = np.meshgrid(x, x, indexing="ij")
    size = np.minimum(a, b) + np.log1p(np.exp(-a - b)) - np.log1p(np.exp(-np.abs(a - b)))
    size[-1, :] = size[:, -1] = x
    return np.clip(np.rint(size * FINE / UNIT), 0, _SIZES - 1).astype(np.int64).ravel()


_TWO = _two_at_a_check()
_ROUNDED = np.minimum((np.arange(_SIZES) + FINE // 2) // FINE, LARGEST)

Sided = tuple[np.ndarray, np.ndarray]  # of each size: the probabilities of both signs, added and subtracted


def _joined(p: Sided, q: Sided) -> Sided:
    first, second = (
        np.bincount(_TWO, weights=np.outer(one, other).ravel(), minlength=_SIZES)
        for one, other in zip(p, q, strict=True)
    )
    return first, second


def _power(p: Sided, n: int) -> Sided:
    found = None
    while n:
        if n & 1:
            found = p if found is None else _joined(found, p)
        n >>= 1
        if n:
            p = _joined(p, p)
    assert found is not None
    return found


def _from_checks(to_checks: np.ndarray, row: float) -> np.ndarray:
    """Return the distribution of what checks say, of ``row`` edges on average."""
    added, less = np.zeros(_SIZES), np.zeros(_SIZES)
    right, wrong = to_checks[LARGEST:], to_checks[LARGEST::-1].copy()
    wrong[0] = 0
    added[::FINE], less[::FINE] = right + wrong, right - wrong
    less[0] = 0
    whole = math.floor(row)
    found = _power((added, less), whole - 1)
    if row > whole:
        longer, share = _joined(found, (added, less)), (row - whole) * (whole + 1) / row
        found = ((1 - share) * found[0] + share * longer[0], (1 - share) * found[1] + share * longer[1])
    both, difference = (np.bincount(_ROUNDED, weights=one, minlength=LARGEST + 1) for one in found)
    out = np.zeros(2 * LARGEST + 1)
    out[LARGEST:] = (both + difference) / 2
    out[: LARGEST + 1] += ((both - difference) / 2)[::-1]
    out[LARGEST] = both[0]
    return np.maximum(out, 0)


Shares = list[tuple[int, float]]


def iterations(rate: float, f: float, shares: Shares, most: int) -> float:
    """Return the iterations to decode at efficiency ``f``, of all rows at once, with a fraction; inf above ``most``."""
    edges = sum(degree * share for degree, share in shares)
    row = edges / (f * binary_entropy(rate))
    if row > ROW_MOST:
        return math.inf
    channel = round(math.log((1 - rate) / rate) / UNIT)
    said = np.zeros(LENGTH)
    said[channel], said[-channel] = 1 - rate, rate
    start = np.fft.rfft(said)
    place = np.clip((np.arange(LENGTH) + LENGTH // 2) % LENGTH - LENGTH // 2, -LARGEST, LARGEST) + LARGEST
    to_checks = np.bincount(place, weights=said, minlength=2 * LARGEST + 1)
    before = rate
    for number in range(1, most + 1):
        heard = _from_checks(to_checks, row)
        said = np.zeros(LENGTH)
        said[: LARGEST + 1], said[LENGTH - LARGEST :] = heard[LARGEST:], heard[:LARGEST]
        message = np.fft.rfft(said)
        left = 0.0
        for degree, share in shares:
            total = np.fft.irfft(start * message**degree, LENGTH)
            left += share * float(total[LENGTH // 2 :].sum() + total[0] / 2)
        if left < CERTAIN:
            return number - 1 + math.log(before / CERTAIN) / math.log(before / max(left, 1e-15))
        if left > before * 0.999:
            return math.inf
        before = left
        told = sum(degree * share / edges * message ** (degree - 1) for degree, share in shares)
        to_checks = np.bincount(
            place, weights=np.maximum(np.fft.irfft(start * told, LENGTH), 0), minlength=2 * LARGEST + 1
        )
        to_checks /= to_checks.sum()
    return math.inf


@dataclass(frozen=True)
class Walk:
    """Where the search stands: shares of degrees 2, 3 and ``middle``; the rest has degree ``high``."""

    few: tuple[float, float, float]
    middle: int
    high: int

    def shares(self, rate: float, f: float) -> Shares:
        """Return all shares; columns of degree 2 must fit on a path over the rows."""
        two, three, middle = self.few
        two = min(two, 0.97 * f * binary_entropy(rate))
        scale = min(1.0, (0.99 - two) / (three + middle))
        three, middle = three * scale, middle * scale
        return [(2, two), (3, three), (self.middle, middle), (self.high, 1 - two - three - middle)]

    def step(self, rng, size: float) -> Walk:
        """Return a place near this one."""
        few = tuple(abs(s + size * rng.normal() * (0.25 * s + 0.02)) for s in self.few)
        middle = int(np.clip(self.middle + rng.integers(-1, 2) * (rng.random() < 0.3), 4, 9))
        high = int(np.clip(self.high + rng.integers(-2, 3) * (rng.random() < 0.3), 10, 24))
        return Walk((few[0], few[1], few[2]), middle, high)


def _work(walk: Walk, rate: float, f: float) -> float:
    shares = walk.shares(rate, f)
    edges = sum(degree * share for degree, share in shares)
    return edges * iterations(rate, f, shares, math.ceil(WORK / edges))


def search(rate: float, steps: int) -> tuple[Walk, float]:
    """Return the best place found, and the lowest f at which it decodes within ``WORK``."""
    rng = np.random.default_rng([17, round(1e6 * rate)])  # noqa: TID251  - a search, no secret
    best, f = Walk((0.9 * binary_entropy(rate), 0.62, 0.15), 6, 14), 1.2
    while (work := _work(best, rate, f)) > WORK:
        f += 0.02
    size = 0.2
    for _ in range(steps):
        while work < 0.93 * WORK and (lower := _work(best, rate, f - 0.004)) <= WORK:
            f, work = f - 0.004, lower
        tried = best.step(rng, size)
        if (found := _work(tried, rate, f)) < work:
            best, work, size = tried, found, min(1.3 * size, 1.0)
        else:
            size = max(0.985 * size, 0.05)
    return best, f


def main() -> int:
    """Run all; return the exit code."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    for rate in map(float, sys.argv[2:] or RATES):
        began = time.monotonic()
        best, f = search(rate, steps)
        shares = [(degree, round(10_000 * share)) for degree, share in best.shares(rate, f)]
        edges = sum(degree * share for degree, share in shares) / 10_000
        found = [(d, s / 10_000) for d, s in shares]
        at = ", ".join(f"{iterations(rate, g, found, 200):.0f} at {g}" for g in (1.08, 1.12, 1.16, 1.2))
        print(f"{rate:.2%}: f {f:.3f}, {edges:.2f} edges a bit; iterations {at}; {time.monotonic() - began:.0f} s")
        print(f"    ({round(1e6 * rate)}, {tuple(shares)}),", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
