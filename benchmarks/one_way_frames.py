"""How often one-way reconciliation by LDPC codes loses a block, needs more of the syndrome, and what it discloses.

    python benchmarks/one_way_frames.py [BLOCKS] [BITS] [SAMPLE]

For each error rate: both sides plan for that rate, the noise is drawn with it. With SAMPLE they know only what so many
further bits show, as a link knows it from its test basis. A lost block yields no key, never a wrong one. ``f``:
disclosed bits of one direction, of further rounds too, over n h(errors drawn / n), mean and largest; ``Mb/s``: both
ends on one thread, processor time. Exit code 1 if a block was lost.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from heliograph.bits import BitString
from heliograph.errors import ReconciliationFailed
from heliograph.postprocessing.reconciliation.correcting import Corrected
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.one_way import Finder, Source, planned_rate
from heliograph.postprocessing.secrecy.entropy import binary_entropy

RATES = (0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.11)
CODES = 2  # blocks that are run first, untimed: they build the codes


def run(qber: float, bits: int, sample: int, number: int) -> tuple[int, float]:
    """Return the rounds that a block took, 0 if it was lost, and its f. Raises if it came out wrong."""
    rng = np.random.default_rng([13, round(1e6 * qber), number])  # noqa: TID251  - noise of a benchmark
    alice = BitString(rng.bytes(bits // 8), bits)
    wrong = rng.random(bits, dtype=np.float32) < qber
    noise = BitString(np.packbits(wrong).tobytes(), bits)
    planned = planned_rate(rng.binomial(sample, qber) / sample, sample) if sample else qber
    limits = Limits(parities=4 * bits)
    source, finder = Source(alice, planned, limits), Finder(alice ^ noise, planned, limits)
    try:
        result = finder.take(source.first())
        while not isinstance(result, Corrected):
            result = finder.take(source.more(result))
    except ReconciliationFailed:
        return 0, 0.0
    if result.bits != alice:
        raise RuntimeError(f"a block at {qber:.1%} was accepted with errors left")
    return result.rounds, source.disclosed.parities_a / (bits * binary_entropy(float(wrong.mean())))


def main() -> int:
    """Run all; return the exit code."""
    blocks, bits, sample = (int(given) for given in (*sys.argv[1:], *("40", "1000000", "0")[len(sys.argv) - 1 :]))
    bits = bits // 8 * 8
    lost_of_all = 0
    for qber in RATES:
        for number in range(CODES):
            run(qber, bits, sample, number)
        began = time.thread_time()
        found = [run(qber, bits, sample, number) for number in range(blocks)]
        seconds = time.thread_time() - began
        lost = sum(not rounds for rounds, _ in found)
        again, most = sum(rounds > 1 for rounds, _ in found), max(rounds for rounds, _ in found)
        fs = [f for rounds, f in found if rounds] or [float("nan")]
        print(
            f"{qber:.1%}: {blocks} blocks of {bits:,} bits, {lost} lost, {again} took more than one round, at most "
            f"{most}; f {np.mean(fs):.3f}, at most {max(fs):.3f}; {blocks * bits / seconds / 1e6:.0f} Mb/s",
            flush=True,
        )
        lost_of_all += lost
    return 1 if lost_of_all else 0


if __name__ == "__main__":
    sys.exit(main())
