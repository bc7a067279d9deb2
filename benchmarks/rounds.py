"""How many rounds Cascade takes and what it discloses, over many runs: both ends in this process, the sample included.

    python benchmarks/rounds.py [RUNS] [BITS] [QBER ...]

Each run has bits, errors and seed of its own, and starts from the estimate of its own sample, as two sides do over a
network. Prints for each error rate the spread of the rounds and of the efficiency (every parity charged, those of the
sample too, over n h(errors found)). Exit code 1 if a run took more than 320 rounds, disclosed more than 1.05 times the
limit, or did not correct.
"""

from __future__ import annotations

import sys

import numpy as np

from heliograph.bits import BitString
from heliograph.postprocessing.reconciliation.answering import Answerer
from heliograph.postprocessing.reconciliation.correcting import Corrected, Corrector
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.sampling import estimate, sample_parities, sample_size
from heliograph.postprocessing.secrecy.entropy import binary_entropy

ROUNDS_MOST, EFFICIENCY_MOST = 320, 1.05


def run(qber: float, bits: int, number: int) -> tuple[int, float]:
    """Return rounds and efficiency of one run; infinite ones if the bits differ in the end."""
    rng = np.random.default_rng([13, round(1e6 * qber), bits, number])  # noqa: TID251  - noise of a benchmark
    alice = BitString(rng.bytes(bits // 8), bits)
    wrong = (rng.random(bits, dtype=np.float32) < qber).astype(np.uint8)
    bob, seed, limits = alice ^ BitString.from_array(wrong), rng.bytes(32), Limits(parities=bits, rounds=10_000)
    start = estimate(sample_parities(bob, seed), sample_parities(alice, seed), bits).start
    reference, corrector = Answerer(alice, seed, start, limits), Corrector(bob, seed, start, limits)
    step: BitString | Corrected = corrector.first_parities()
    while not isinstance(step, Corrected):
        step = corrector.advance(reference.answer(step))
    if step.bits != alice:
        return sys.maxsize, float("inf")
    disclosed = step.disclosed.parities_a + sample_size(bits)
    return step.rounds, disclosed / (bits * binary_entropy(float(wrong.mean())))


def main() -> int:
    """Run all; return the exit code."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    bits = int(float(sys.argv[2])) // 8 * 8 if len(sys.argv) > 2 else 10_000_000
    missed = False
    for qber in map(float, sys.argv[3:] or ("0.01", "0.02")):
        rounds, efficiency = (sorted(of) for of in zip(*(run(qber, bits, i) for i in range(runs)), strict=True))
        middle, late = runs // 2, int(0.95 * runs)
        missed |= rounds[-1] > ROUNDS_MOST or efficiency[-1] > EFFICIENCY_MOST
        print(
            f"{qber:.2%}, {bits:,} bits, {runs} runs: rounds {rounds[0]} to {rounds[-1]}, median {rounds[middle]}, "
            f"95 % within {rounds[late]}; efficiency {efficiency[0]:.4f} to {efficiency[-1]:.4f}, median "
            f"{efficiency[middle]:.4f}, 95 % within {efficiency[late]:.4f}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
