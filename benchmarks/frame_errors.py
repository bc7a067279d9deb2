"""How often Cascade leaves a frame wrong: blocks of 1e7 bits, frame after frame compared with the truth.

    python benchmarks/frame_errors.py [FRAMES] [QBER ...]

Prints for each error rate the frames that were run and those that differed in the end, with the bound that many honest
frames without a failure give at 95 % confidence (3 / frames), and the spread of the rounds. A frame that stays wrong
costs its block, never a wrong key: verification finds it. Exit code 1 if any did.
"""

from __future__ import annotations

import sys

import numpy as np

from heliograph.bits import BitString
from heliograph.postprocessing.reconciliation.answering import Answerer
from heliograph.postprocessing.reconciliation.correcting import Corrected, Corrector
from heliograph.postprocessing.reconciliation.limits import Limits

BLOCK = 76 << 17  # 76 frames of 2^17 bits
FRAMES_EACH = 76


def run(qber: float, number: int) -> tuple[int, int]:
    """Return the frames left wrong of block ``number``, and its rounds."""
    rng = np.random.default_rng([11, round(1e6 * qber), number])  # noqa: TID251  - noise of a benchmark
    alice = rng.bytes(BLOCK // 8)
    wrong = np.packbits(rng.random(BLOCK, dtype=np.float32) < qber)
    bob = (np.frombuffer(alice, dtype=np.uint8) ^ wrong).tobytes()
    seed, limits = rng.bytes(32), Limits(parities=BLOCK, rounds=10_000)
    reference = Answerer(BitString(alice, BLOCK), seed, qber, limits)
    corrector = Corrector(BitString(bob, BLOCK), seed, qber, limits)
    step: BitString | Corrected = corrector.first_parities()
    while not isinstance(step, Corrected):
        step = corrector.advance(reference.answer(step))
    left = np.frombuffer(step.bits.to_bytes(), dtype=np.uint8) != np.frombuffer(alice, dtype=np.uint8)
    return int(left.reshape(FRAMES_EACH, -1).any(axis=1).sum()), step.rounds


def main() -> int:
    """Run all; return the exit code."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    failed = 0
    for qber in map(float, sys.argv[2:] or ("0.01", "0.03", "0.05")):
        blocks = -(-wanted // FRAMES_EACH)
        found = [run(qber, number) for number in range(blocks)]
        left, rounds = sum(wrong for wrong, _ in found), sorted(r for _, r in found)
        failed += left
        frames = blocks * FRAMES_EACH
        print(
            f"{qber:.1%}: {frames:,} frames, {left} left wrong; below {3 / frames:.1e} at 95 % if none; rounds of a "
            f"block: median {rounds[len(rounds) // 2]}, 95 % within {rounds[int(0.95 * len(rounds))]}, "
            f"at most {rounds[-1]}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
