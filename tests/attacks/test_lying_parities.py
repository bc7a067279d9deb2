"""A peer that lies about parities steers the search anywhere, and never out of the frame.

The lengths leave 1 to 8 positions beyond a whole tile: there a subset's largest node may be empty, and a peer that says
"the error is not in the other half" sends the search to positions that do not exist.
"""

import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.errors import HeliographError
from heliograph.kernels.native import KERNELS
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.mirror import Mirror

ROUNDS_MAX = 3000
LENGTHS = [128 * tiles + rest for tiles in (1, 2, 3, 8) for rest in (1, 2, 3, 5, 8, 63, 65)]


def lie(rng, way, count, turn):
    """Return which of the parities of one message the liar says to differ."""
    wrong = np.zeros(count, dtype=np.uint8)
    if way == "one subset" and turn == 3 and count % 16 == 0:
        wrong[::16] = 1
    elif way == "first once":
        wrong[0] = turn == 0
    elif way == "all":
        wrong[:] = 1
    elif way == "at random":
        wrong[:] = rng.random(count) < 0.5
    elif way == "seldom":
        wrong[:] = rng.random(count) < 0.02
    return wrong


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(
            "compiled", marks=pytest.mark.skipif(KERNELS != "compiled", reason="there is no compiled kernel here")
        ),
        "numpy",
    ],
)
@pytest.mark.parametrize("corrects", [True, False])
@pytest.mark.parametrize("way", ["one subset", "first once", "all", "at random", "seldom"])
def test_a_liar_ends_in_a_refusal_or_an_end_and_corrects_nothing_outside(kernel, corrects, way):
    rng = np.random.default_rng([3, len(way), corrects])
    for length in LENGTHS if kernel == "compiled" else LENGTHS[::3]:
        for _ in range(6 if kernel == "compiled" else 2):
            bits = BitString(np.packbits(rng.integers(0, 2, length, dtype=np.uint8)).tobytes(), length)
            mirror = Mirror(bits, rng.bytes(32), 0.01, Limits(10**6), corrects=corrects, kernel=kernel)
            turn = 0
            while mirror.parities is not None and turn < ROUNDS_MAX:
                told = lie(rng, way, len(mirror.parities), turn)
                try:
                    mirror.learn(mirror.parities ^ BitString.from_array(told))
                    mirror.check()
                except HeliographError:
                    break
                turn += 1
            assert turn < ROUNDS_MAX
            assert len(mirror.bits) == length
            if corrects:
                assert (mirror.bits ^ bits) == mirror.pattern
            else:
                assert mirror.bits == bits


@pytest.mark.skipif(KERNELS != "compiled", reason="there is no compiled kernel here")
@pytest.mark.parametrize("way", ["one subset", "at random", "seldom"])
def test_both_kernels_follow_a_liar_alike(way):
    for length in LENGTHS[::4]:
        ends = []
        for kernel in ("compiled", "numpy"):
            rng = np.random.default_rng([5, length])
            bits = BitString(np.packbits(rng.integers(0, 2, length, dtype=np.uint8)).tobytes(), length)
            mirror = Mirror(bits, rng.bytes(32), 0.01, Limits(10**6), corrects=True, kernel=kernel)
            asked = []
            while mirror.parities is not None and len(asked) < ROUNDS_MAX:
                asked.append(mirror.parities)
                mirror.learn(
                    mirror.parities ^ BitString.from_array(lie(rng, way, len(mirror.parities), len(asked) - 1))
                )
            ends.append((asked, mirror.pattern))
        assert ends[0] == ends[1]
