"""The finite-key length of 2-decoy BB84: the decoy bounds and the length of Lim et al., with Serfling's sampling term.

C. C. W. Lim, M. Curty, N. Walenta, F. Xu, H. Zbinden, Phys. Rev. A 89, 022307 (2014); theory.md 1.3, ADR 0019.

Taken from the paper, by way of ``lim2014``:

- The bounds on vacuum and single-photon detections and on single-photon errors, with Hoeffding's deviations.
- The split of eps_sec in 21 parts, and 6 log2(21/eps_sec) + log2(2/eps_cor) taken from the length.

Replaced, each for a reason (security.md 5):

- The Fung-Ma-Chau gamma, which is no rigorous bound for small samples or few errors, by Serfling's. At eps_sec/21 its
  tail probability is (eps_sec/21)^2, as gamma's is, so the split stays: the part nu is all that sampling costs.
- The paper's vacuum term s_X0 is not credited: the acceptance set then has no third threshold. Its lower bound still
  enters s1, as printed.
- The estimate of lambda_EC by what was really disclosed, capped; verification is charged with the bits really sent, and
  log2(2/eps_cor) is kept.
- A length computed from what was observed by one that is fixed before the first pulse with its acceptance set.
  Wiesemann et al. (arXiv:2405.16578) criticise how previous works treat fixed length and acceptance testing; Lim et
  al. is taken to be meant too. The preset set and length are our answer: a design decision, not a published theorem
  about this combination.

The error counts of the key basis enter nowhere, so what is known only after reconciliation does not matter here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from heliograph.postprocessing.secrecy import lim2014
from heliograph.postprocessing.secrecy.concentration import serfling
from heliograph.postprocessing.secrecy.photons import WeakPulses
from heliograph.types import IntensityCounts, LightParameters

__all__ = ["EPSILON_PARTS", "Terms", "bounds", "check_light", "secret_key_length"]

# From the security proof.
EPSILON_PARTS: Final = lim2014.EPSILON_PARTS  # eps_sec = 21 eps


@dataclass(frozen=True, slots=True)
class Terms:
    """What the bound says about a block. Counts unless a rate; every field is finite.

    ``s0_lower``, ``s1_lower``: vacuum and single-photon detections in the key basis; ``s0_test_lower``,
    ``s1_test_lower``: in the test basis; ``v1_upper``: single-photon errors in the test basis; ``serfling``: what
    sampling adds to the error rate; ``phase_error_upper``: rate among the key basis' single photons, at most 1/2.
    """

    s0_lower: float
    s0_test_lower: float
    s1_lower: float
    s1_test_lower: float
    v1_upper: float
    serfling: float
    phase_error_upper: float


def check_light(light: LightParameters) -> None:
    """Raise ConfigurationError unless the light is a signal and two decoys with signal > the sum of the decoys."""
    lim2014.check_source(_source(light))


def bounds(key: IntensityCounts, test: IntensityCounts, light: LightParameters, eps_sec: float) -> Terms:
    """Bound the single-photon detections and their phase error rate from the announced counts.

    Raises ConfigurationError for light that is not 2-decoy, ValueError for counts of another shape or ``eps_sec``
    outside (0, 1).
    """
    # (1) vacuum and single-photon detections of each basis, single-photon errors of the test basis: the paper's
    found = lim2014.bounds(key, test, _source(light), eps_sec)
    known = (found.s0_lower, found.s0_test_lower, found.s1_lower, found.s1_test_lower, found.v1_upper)
    # (2) from the test basis' error rate to the key basis' phase error rate; none known means 1/2
    if found.s1_lower == 0 or found.s1_test_lower == 0:
        return Terms(*known, serfling=0.5, phase_error_upper=0.5)
    ln_inverse_eps = math.log(EPSILON_PARTS) - math.log(eps_sec)
    deviation = serfling(found.s1_lower, found.s1_test_lower, ln_inverse_eps)
    return Terms(*known, deviation, min(0.5, found.v1_upper / found.s1_test_lower + deviation))


def secret_key_length(
    single_photons_lower: float, phase_error_upper: float, disclosed_bits: int, eps_sec: float, eps_cor: float
) -> float:
    """Return the length before floor and clamp, in bits; zero or less means that the block yields no key.

    ``disclosed_bits`` is everything charged: parities by the two-way rule plus the verification bits really sent.
    Lim et al. 2014, Eq. 1, without s0: s1 (1 - h(phase)) - lambda - 6 log2(21/eps_sec) - log2(2/eps_cor).
    Raises ValueError for a negative or not finite count, a rate outside [0, 1/2], an epsilon outside (0, 1).
    """
    if not (math.isfinite(single_photons_lower) and single_photons_lower >= 0):
        raise ValueError(f"{single_photons_lower} single-photon detections cannot be")
    if not 0 <= phase_error_upper <= 0.5:
        raise ValueError(f"phase_error_upper = {phase_error_upper}: must lie in [0, 1/2]")
    if disclosed_bits < 0:
        raise ValueError(f"disclosed_bits = {disclosed_bits}: must not be negative")
    if not (0 < eps_sec < 1 and 0 < eps_cor < 1):
        raise ValueError(f"eps_sec = {eps_sec}, eps_cor = {eps_cor}: must lie strictly between 0 and 1")
    return lim2014.secret_key_length(0.0, single_photons_lower, phase_error_upper, disclosed_bits, eps_sec, eps_cor)


def _source(light: LightParameters) -> WeakPulses:
    return WeakPulses(light.intensities, light.intensity_probabilities)
