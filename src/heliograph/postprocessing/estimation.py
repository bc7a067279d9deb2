"""What is charged for two-way reconciliation, and when the cheaper rule may be used (security.md 5)."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from heliograph.types import Disclosed, ReconciledBlock

__all__ = ["ASYMMETRY_SIGMAS", "TwoWayRule", "charged_parities", "is_asymmetric"]

ASYMMETRY_SIGMAS: Final = 4.0  # security.md 5


class TwoWayRule(StrEnum):
    """How parities that crossed in both directions are counted.

    ``BOTH`` charges their sum and holds for any source. ``PATTERN_PUBLIC`` gives the eavesdropper the error pattern
    and charges one direction; it needs a theorem that holds with the pattern announced, and errors that do not depend
    on the bit.
    """

    BOTH = "both"
    PATTERN_PUBLIC = "pattern_public"


def charged_parities(disclosed: Disclosed, rule: TwoWayRule) -> int:
    """Return the parity bits that the length pays for; verification is charged apart.

    Under ``PATTERN_PUBLIC`` a parity of one side and the public error pattern give the other side's parity of the same
    positions, so one direction is charged: the larger, since the smaller is then contained in it.
    """
    if rule is TwoWayRule.BOTH:
        return disclosed.parities_a + disclosed.parities_b
    return max(disclosed.parities_a, disclosed.parities_b)


def is_asymmetric(block: ReconciledBlock) -> bool:
    """Return whether the bits are biased, or errors depend on the bit, beyond 4 sigma.

    Then the error pattern tells something about the key and the rule ``PATTERN_PUBLIC`` is void. An honest block with
    equal detectors is called asymmetric once in about 8000 blocks. Raises ValueError for contradictory counts.
    """
    zeros, ones = block.zeros, block.ones
    if not (0 <= block.errors_given_0 <= zeros and 0 <= block.errors_given_1 <= ones):
        raise ValueError("more errors than bits cannot be")
    n = zeros + ones
    if n == 0:
        return False
    if abs(zeros - ones) > ASYMMETRY_SIGMAS * math.sqrt(n):
        return True
    if zeros == 0 or ones == 0:
        return False  # a handful of bits; nothing can be said
    pooled = (block.errors_given_0 + block.errors_given_1) / n
    sigma = math.sqrt(pooled * (1 - pooled) * (1 / zeros + 1 / ones))
    difference = abs(block.errors_given_0 / zeros - block.errors_given_1 / ones)
    return difference > ASYMMETRY_SIGMAS * sigma
