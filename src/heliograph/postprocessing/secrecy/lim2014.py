"""The finite-key length of 2-decoy BB84, after Lim et al.: to reproduce published curves, not to make keys.

C. C. W. Lim, M. Curty, N. Walenta, F. Xu, H. Zbinden, "Concise security bounds for practical decoy-state quantum key
distribution", Phys. Rev. A 89, 022307 (2014); theory.md 1.3. The paper's key basis is X and its test basis Z; here
they are just key and test.

Where the printed text is easily misread:

- The deviation of one intensity's count uses the TOTAL of its basis, n_X and not n_X,k (Eq. 3).
- eps_sec is split in 21 parts. The same 21 is in the deviations, in 6 log2(21/eps_sec) and, squared, in gamma.
- The bounds on counts are not clamped, as printed: with few events at the weakest intensity its lower bound is
  negative, which makes v1 larger. Only the photon events themselves are: none is negative, none above its basis.
- gamma at zero errors would be 0: see ``concentration.fung_ma_chau``.
- Fig. 1 prints eta_ch in the error probability where only eta_sys is self-consistent: that is the figure's model of a
  link, not the theorem (benchmarks/published_anchors.py).

It is a theorem about a fixed length, and its gamma (Fung, Ma, Chau 2010) is not rigorous for small samples: results
are ``indicative`` (security.md 5). Chernoff's and Kato's bounds replace Hoeffding's one for one, 10 on detections and
2 on errors, so the split stays: eps_sec = 2[2a1 + a2 + a3] + nu + 10 e1 + 2 e2 = 21 eps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.concentration import fung_ma_chau
from heliograph.postprocessing.secrecy.count_bounds import HOEFFDING, Method, bound_counts
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.photons import SMALLEST, WeakPulses
from heliograph.types import IntensityCounts

__all__ = ["EPSILON_PARTS", "Terms", "bounds", "check_source", "secret_key_length"]

# From the security proof.
EPSILON_PARTS: Final = 21


@dataclass(frozen=True, slots=True)
class Terms:
    """What the bound says. Counts unless a rate; every field is finite.

    ``s0_lower``, ``s1_lower``: vacuum and single-photon detections in the key basis; ``s0_test_lower``,
    ``s1_test_lower``: in the test basis; ``v1_upper``: single-photon errors in the test basis; ``gamma``: what sampling
    adds to their rate; ``phase_error_upper``: rate among the key basis' single photons, at most 1/2.
    """

    s0_lower: float
    s0_test_lower: float
    s1_lower: float
    s1_test_lower: float
    v1_upper: float
    gamma: float
    phase_error_upper: float


def check_source(source: WeakPulses) -> None:
    """Raise ConfigurationError unless there are three intensities, mu1 > mu2 + mu3 and mu2 > mu3 >= 0."""
    source.check(3, "lim2014")
    mu1, mu2, mu3 = source.intensities
    if mu1 - mu2 - mu3 < SMALLEST:
        raise ConfigurationError(
            f"intensities = {list(source.intensities)}: lim2014 needs the first above the sum of the other two"
        )


def bounds(
    key: IntensityCounts, test: IntensityCounts, source: WeakPulses, eps_sec: float, method: Method = HOEFFDING
) -> Terms:
    """Bound vacuum and single-photon detections and the phase error rate from three intensities' counts.

    Needs mu1 > mu2 + mu3, mu2 > mu3 >= 0. Raises ConfigurationError for another source, ValueError for counts of
    another shape or ``eps_sec`` outside (0, 1).
    """
    check_source(source)
    _, mu2, mu3 = source.intensities
    if not len(key.detections) == len(test.detections) == 3:
        raise ValueError("counts for exactly three intensities are needed")
    if not 0 < eps_sec < 1:
        raise ValueError(f"eps_sec = {eps_sec}: must lie strictly between 0 and 1")
    ln_inverse_eps = math.log(EPSILON_PARTS) - math.log(eps_sec)
    told = method.prediction

    # (1) vacuum and single-photon detections of each basis
    s0, s1 = _photon_events(key, source, ln_inverse_eps, method, told.key_counts if told else None)
    s0_test, s1_test = _photon_events(test, source, ln_inverse_eps, method, told.test_counts if told else None)
    # (2) single-photon errors of the test basis
    wrong = bound_counts(test.errors, method.bound, ln_inverse_eps, told.test_errors if told else None)
    v1 = source.tau(1) / (mu2 - mu3) * (source.weight(1) * wrong.upper[1] - source.weight(2) * wrong.lower[2])
    v1 = max(0.0, v1)
    # (3) the phase error rate; where no single photon is known, 1/2
    if s1 == 0 or s1_test == 0:
        return Terms(s0, s0_test, s1, s1_test, v1, gamma=0.5, phase_error_upper=0.5)
    rate = min(0.5, v1 / s1_test)
    gamma = fung_ma_chau(s1, s1_test, rate, ln_inverse_eps)
    return Terms(s0, s0_test, s1, s1_test, v1, gamma, min(0.5, rate + gamma))


def secret_key_length(
    vacuum_lower: float,
    single_photons_lower: float,
    phase_error_upper: float,
    disclosed_bits: int,
    eps_sec: float,
    eps_cor: float,
    parts: int = EPSILON_PARTS,
) -> float:
    """Return the length before floor and clamp, in bits (Lim 2014, Eq. 1; with 19 ``parts`` that of Rusca 2018).

    s0 + s1 (1 - h(phase)) - lambda - 6 log2(parts/eps_sec) - log2(2/eps_cor). ``disclosed_bits`` is all of lambda.
    """
    secrecy = 6 * (math.log2(parts) - math.log2(eps_sec))
    correctness = 1 - math.log2(eps_cor)
    single = single_photons_lower * (1 - binary_entropy(phase_error_upper))
    return vacuum_lower + single - disclosed_bits - secrecy - correctness


def _photon_events(
    counts: IntensityCounts,
    source: WeakPulses,
    ln_inverse_eps: float,
    method: Method,
    told: tuple[float, ...] | None,
) -> tuple[float, float]:
    """Return lower bounds on (vacuum, single-photon) detections of one basis."""
    n = sum(counts.detections)
    detected = bound_counts(counts.detections, method.bound, ln_inverse_eps, told)
    lower = [source.weight(i) * x for i, x in enumerate(detected.lower)]
    upper = [source.weight(i) * x for i, x in enumerate(detected.upper)]
    mu1, mu2, mu3 = source.intensities
    tau0, tau1 = source.tau(0), source.tau(1)

    s0 = tau0 * (mu2 * lower[2] - mu3 * upper[1]) / (mu2 - mu3)
    s0 = min(float(n), max(0.0, s0))
    s1 = (
        tau1
        * mu1
        * (lower[1] - upper[2] - (mu2**2 - mu3**2) / mu1**2 * (upper[0] - s0 / tau0))
        / ((mu2 - mu3) * (mu1 - mu2 - mu3))
    )
    # Less than one event is none; together they are no more than what was detected.
    s1 = min(n - s0, s1)
    return s0, (s1 if s1 >= 1 else 0.0)
