"""What is charged for reconciliation, and the check that decides whether the cheaper rule may be used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from heliograph.errors import LocalProtocolError
from heliograph.types import Disclosed, ReconciledBlock

__all__ = ["SIGMA_MAX", "Asymmetry", "TwoWayRule", "asymmetry_sigma", "charged"]

TwoWayRule = Literal["pattern_public", "both", "one_way"]

# From the security rules: security.md 5.
SIGMA_MAX: Final = 4.0


def charged(disclosed: Disclosed, rule: TwoWayRule) -> int:
    """Return lambda_EC in bits under a rule (security.md 5).

    ``pattern_public``: one direction; the error pattern is given to the adversary, so it is allowed only with a theorem
    whose bound holds with that pattern announced [after arXiv 2307.00576]. ``both``: the sum of both directions, by the
    chain rule, for any source. ``one_way``: the syndrome and what the corrected side announces, by the same rule, so
    that no theorem has to allow it. All add the verification hash. Raises LocalProtocolError for another rule.
    """
    if rule == "pattern_public":
        return disclosed.parities_a + disclosed.verification
    if rule in ("both", "one_way"):
        return disclosed.parities_a + disclosed.parities_b + disclosed.verification
    raise LocalProtocolError(f"two-way rule {rule!r}: choose pattern_public, both or one_way")


@dataclass(frozen=True, slots=True)
class Asymmetry:
    """Two deviations in standard deviations, with sign.

    ``errors``: rate of errors given 0 minus given 1, under one common rate; ``bias``: zeros minus ones, fair bits.
    """

    errors: float
    bias: float

    @property
    def significant(self) -> bool:
        """Whether either is beyond 4 sigma: then ``pattern_public`` must not be used."""
        return abs(self.errors) > SIGMA_MAX or abs(self.bias) > SIGMA_MAX


def asymmetry_sigma(block: ReconciledBlock) -> Asymmetry:
    """Return how far the errors depend on the bit value, and how far the bits are biased.

    Two-proportion and one-proportion z-scores; 0 where nothing can be said (no bits of a value, no errors).
    """
    zeros, ones = block.zeros, block.ones
    n = zeros + ones
    bias = (zeros - ones) / math.sqrt(n) if n else 0.0
    pooled = (block.errors_given_0 + block.errors_given_1) / n if n else 0.0
    variance = pooled * (1 - pooled) * (1 / zeros + 1 / ones) if zeros and ones else 0.0
    difference = block.errors_given_0 / zeros - block.errors_given_1 / ones if zeros and ones else 0.0
    return Asymmetry(errors=difference / math.sqrt(variance) if variance > 0 else 0.0, bias=bias)
