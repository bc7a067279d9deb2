"""Rounds against efficiency of Cascade: run as `python benchmarks/cascade_levels.py [QBER ...]`.

For each error rate, one block of 1e7 bits with each choice of top groups and of `at_once` (all digits of a place once
so few searches are left in a frame). `postprocessing/reconciliation/passes.py` and ADR 28 have what was chosen from it.
"""

import sys
from dataclasses import replace
from math import log2

import numpy as np

from heliograph.bits import BitString
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.mirror import FEW_ROUNDS, PATIENT, Mirror, Pace
from heliograph.postprocessing.reconciliation.passes import Levels
from heliograph.postprocessing.secrecy.entropy import binary_entropy

BITS = 10_000_000
SEED = bytes(range(32))  # of the passes: a benchmark has no secrets


def measure(alice: BitString, bob: BitString, qber: float, pace: Pace) -> tuple[float, int]:
    """Return efficiency and rounds."""
    limits = Limits(parities=4 * BITS, rounds=100_000)
    sides = [Mirror(b, SEED, qber, limits, corrects=c, pace=pace) for b, c in ((alice, False), (bob, True))]
    while (ours := sides[0].parities) is not None:
        theirs = sides[1].parities
        sides[0].learn(theirs)
        sides[1].learn(ours)
    assert sides[1].bits == alice
    return sides[0].compared / (BITS * binary_entropy(qber)), sides[0].rounds


def main(rates: list[float]) -> None:
    """Print one line for each choice."""
    rng = np.random.default_rng(1)  # noqa: TID251  - a benchmark has no secrets
    print("qber    pace     levels  at_once  efficiency  rounds")
    for qber in rates:
        bits = rng.integers(0, 2, BITS, dtype=np.uint8)
        errors = np.zeros(BITS, dtype=np.uint8)
        errors[rng.choice(BITS, round(qber * BITS), replace=False)] = 1
        alice, bob = BitString.from_array(bits), BitString.from_array(bits ^ errors)
        first = int(log2(0.73 / qber))
        for name, pace, choices in (("few", FEW_ROUNDS, (0, 5, 10)), ("patient", PATIENT, (0,))):
            for top in (first, first + 1):
                for second in range(top, top + 4):
                    for at_once in choices:
                        levels = Levels(((0.5, top),), {top: ((0.5, second),)})
                        efficiency, rounds = measure(alice, bob, qber, replace(pace, at_once=at_once, levels=levels))
                        chosen = f"{top}, {second}"
                        print(f"{qber:<7} {name:8} {chosen:6} {at_once:>8}  {efficiency:10.4f}  {rounds:6}", flush=True)


if __name__ == "__main__":
    main([float(text) for text in sys.argv[1:]] or [0.005, 0.01, 0.02, 0.03, 0.05])
