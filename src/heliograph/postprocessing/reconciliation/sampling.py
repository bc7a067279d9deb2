"""A first estimate of the error rate of keys about which nothing is known: a few parities, charged like all others.

Parities of groups of eight bits tell rates of a few per cent with few bits; single bits tell a rate near one, when one
side has its bit values inverted, which even groups cannot see. Positions are drawn over the
whole key, so a burst does not fool the estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString
from heliograph.errors import RemoteProtocolError
from heliograph.kernels.shuffle import positions
from heliograph.postprocessing.reconciliation.passes import draw_positions, shuffle

__all__ = ["Estimate", "estimate", "sample_parities", "sample_size"]

# Our choices. A third too low costs twice the rounds; too high, 3 % of the efficiency for each factor of 1.5. So long
# keys have a larger sample, at most 0.05 % of the bits, and reconciliation starts one deviation low.
_LEVEL: Final = 3
_GROUPS: Final = 192
_GROUPS_LONG: Final = 1024
_BITS_PER_GROUP: Final = 2048
# One way the estimate chooses the code, and a tenth too high costs a twelfth more parities: a sample of 2 % of those
# that follow at an error rate of 1 % is the least in sum.
_GROUPS_ONE_WAY: Final = 8192
_BITS_PER_GROUP_ONE_WAY: Final = 512
_SINGLES: Final = 32
_SHORT: Final = 1 << 16  # up to here no position comes twice; above, one of a group's eight does in 1 of 2,340 groups
_LN_INVERSE_EPS: Final = 8.0  # of the lower bound, which only decides to stop early


@dataclass(frozen=True, slots=True)
class Estimate:
    """``rate``: what the sample shows; ``start``: one standard deviation below it, what reconciliation starts from.

    ``rate_lower``: above the true rate with probability under 1e-3.
    """

    rate: float
    start: float
    rate_lower: float


def _sizes(length: int, *, one_way: bool) -> tuple[int, int]:
    each, most = (_BITS_PER_GROUP_ONE_WAY, _GROUPS_ONE_WAY) if one_way else (_BITS_PER_GROUP, _GROUPS_LONG)
    groups = min(max(_GROUPS, length // each), most, length >> (_LEVEL + 1))
    return groups, min(_SINGLES, length >> 2)


def sample_size(length: int, *, one_way: bool = False) -> int:
    """Return how many parities the sample has, each charged in both directions."""
    return sum(_sizes(length, one_way=one_way))


def sample_parities(bits: BitString, seed: bytes, *, one_way: bool = False) -> BitString:
    """Return one side's parities of the sample: groups, then single bits behind them.

    Of short keys by the order of pass 0; to shuffle a long one for it would take longer than all its groups.
    """
    groups, singles = _sizes(len(bits), one_way=one_way)
    first = groups << _LEVEL
    if len(bits) <= _SHORT:
        places = positions(shuffle(seed, 0, len(bits)), np.arange(first + singles))
    else:
        places = draw_positions(seed, first + singles, len(bits))
    packed = np.frombuffer(bits.to_bytes(), dtype=np.uint8)
    chosen = packed[places >> 3] >> (7 - (places & 7)).astype(np.uint8) & np.uint8(1)
    grouped: NDArray[np.uint8] = np.bitwise_xor.reduce(chosen[:first].reshape(groups, 1 << _LEVEL), axis=1)
    return BitString.from_array(np.concatenate([grouped, chosen[first:]]))


def estimate(ours: BitString, theirs: BitString, length: int, *, one_way: bool = False) -> Estimate:
    """Compare both sides' parities of the sample of ``length`` bits; both sides come to the same.

    Raises RemoteProtocolError if the peer's are of another number.
    """
    groups, singles = _sizes(length, one_way=one_way)
    if len(theirs) != groups + singles:
        raise RemoteProtocolError(f"{len(theirs)} parities came for a sample of {groups + singles}")
    differs = (ours ^ theirs).to_array()
    odd = float(np.mean(differs[:groups])) if groups else 0.0
    single = float(np.mean(differs[groups:])) if singles else 0.0
    single_lower = max(0.0, single - math.sqrt(_LN_INVERSE_EPS / (2 * max(singles, 1))))
    odd_lower = max(0.0, odd - math.sqrt(_LN_INVERSE_EPS / (2 * max(groups, 1))))
    # Beyond a half the groups are no longer a monotonic measure: the single bits decide.
    deviation = math.sqrt(odd * (1 - odd) / max(groups, 1))
    rate, start = _rate(odd), _rate(max(0.0, odd - deviation))
    if single_lower >= 0.25:
        rate = start = max(single, 0.5)
    return Estimate(rate, start, max(single_lower, _rate(odd_lower)))


def _rate(odd: float) -> float:
    """Return the error rate at which this share of groups has an odd number of errors; at most 1/2."""
    agree = max(0.0, 1 - 2 * odd)
    for _ in range(_LEVEL):  # roots round alike on every machine, powers do not
        agree = math.sqrt(agree)
    return (1 - agree) / 2
