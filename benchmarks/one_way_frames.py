"""How often one-way reconciliation by LDPC codes loses a block, needs a second syndrome, and what it discloses.

    python benchmarks/one_way_frames.py [BLOCKS] [BITS]

For each error rate: both sides plan for that rate, the noise is drawn with it. A lost block yields no key, never a
wrong one. ``f``: disclosed bits, of second rounds too, over n h(Q); ``Mb/s``: both ends on one thread, processor time.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from heliograph.bits import BitString
from heliograph.errors import ReconciliationFailed
from heliograph.postprocessing.reconciliation.correcting import Corrected
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.one_way import Finder, Source
from heliograph.postprocessing.secrecy.entropy import binary_entropy

RATES = (0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.11)


def run(qber: float, bits: int, number: int) -> tuple[bool, bool, float]:
    """Return whether a block was corrected, whether it took a second round, and its f. Raises if it came out wrong."""
    rng = np.random.default_rng([13, round(1e6 * qber), number])  # noqa: TID251  - noise of a benchmark
    alice = BitString(rng.bytes(bits // 8), bits)
    noise = np.packbits(rng.random(bits, dtype=np.float32) < qber).tobytes()
    limits = Limits(parities=4 * bits)
    source, finder = Source(alice, qber, limits), Finder(alice ^ BitString(noise, bits), qber, limits)
    result = finder.take(source.first())
    second = not isinstance(result, Corrected)
    try:
        if not isinstance(result, Corrected):
            result = finder.take(source.more(result))
    except ReconciliationFailed:
        return False, True, 0.0
    if not isinstance(result, Corrected):
        return False, True, 0.0
    if result.bits != alice:
        raise RuntimeError(f"a block at {qber:.1%} was accepted with errors left")
    return True, second, source.disclosed.parities_a / (bits * binary_entropy(qber))


def main() -> int:
    """Run all; return the exit code."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    bits = int(sys.argv[2]) // 8 * 8 if len(sys.argv) > 2 else 1_000_000
    for qber in RATES:
        run(qber, bits, 0)  # builds the code
        began = time.thread_time()
        found = [run(qber, bits, number) for number in range(blocks)]
        seconds = time.thread_time() - began
        lost, second = sum(not good for good, _, _ in found), sum(again for _, again, _ in found)
        fs = [f for good, _, f in found if good]
        print(
            f"{qber:.1%}: {blocks} blocks of {bits:,} bits, {lost} lost, {second} with a second round, "
            f"f {np.mean(fs) if fs else float('nan'):.3f}, {blocks * bits / seconds / 1e6:.0f} Mb/s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
