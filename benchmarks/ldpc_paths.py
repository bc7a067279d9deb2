"""How fast each form of the one-way decoder is, in one run: AVX-512, AVX2, portable C, numpy.

    python benchmarks/ldpc_paths.py [BITS] [QBER]

One frame with as many errors as expected, the best of five processor times (one for numpy); the processor takes the
next lower form where it lacks one. All find the same pattern in as many iterations: exit code 1 if not.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from heliograph.kernels.ldpc import decode, syndromes
from heliograph.postprocessing.reconciliation.codes import frames_for

FORMS = (("AVX-512", 2), ("AVX2", 1), ("portable C", 0))


def main() -> int:
    """Run all; return the exit code."""
    bits = int(sys.argv[1]) if len(sys.argv) > 1 else 65_536
    qber = float(sys.argv[2]) if len(sys.argv) > 2 else 0.02
    frames = frames_for(bits, qber)
    code = frames.code(0)
    rng = np.random.default_rng(23)  # noqa: TID251  - noise of a benchmark
    wrong = np.zeros(code.frame_bits, dtype=np.uint8)
    wrong[rng.choice(bits, round(bits * qber), replace=False)] = 1
    odd = syndromes(code, np.packbits(wrong).tobytes())
    began = time.thread_time()
    expected = decode(code, odd, frames.channel, 100, kernel="numpy")
    seconds = {"numpy": time.thread_time() - began}
    for name, at_most in FORMS:
        for _ in range(5):
            began = time.thread_time()
            found = code.native.decode(odd, frames.channel, 100, at_most=at_most)
            seconds[name] = min(seconds.get(name, float("inf")), time.thread_time() - began)
            if found != expected:
                print(f"{name} found something else")
                return 1
    for name, taken in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"{name}: {bits / taken / 1e6:.2f} Mb/s, {expected[1][0]} iterations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
