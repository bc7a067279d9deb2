"""The finite-key length of 1-decoy BB84, after Rusca et al.: to reproduce published curves, not to make keys.

D. Rusca, A. Boaron, F. Gruenenfelder, A. Martin, H. Zbinden, "Finite-key analysis for the 1-decoy state QKD protocol",
Appl. Phys. Lett. 112, 171104 (2018); theory.md 1.4. Its key basis is Z, its test basis X.

Where the printed text is easily misread, and how it is read here (theory.md 1.4):

- (A18) prints the vacuum bound without e^k/p_k; the weight belongs there.
- (A16) prints e1 for e2: the deviation of an error count uses the total of the errors.
- gamma's constant is 21^2, taken over from Lim et al.; a strict split in 19 would be 19^2. It changes the length by
  some 1e-4 of itself. The published 21 is kept, so that curves can be compared.
- The upper bound on vacuum events is taken at both intensities and the smaller one is used, as in the published
  curves, although the union bound for having two is not paid. ``wiesemann2024`` fixes one in advance instead.
- It uses the key basis' errors, which are known only after reconciliation: no test before it can use this bound.

As for ``lim2014``: a theorem about a fixed length, with the Fung-Ma-Chau gamma, so results are ``indicative``
(security.md 5); bounds on counts are not clamped; Chernoff's and Kato's bounds replace Hoeffding's one for one and
the split stays: eps_sec = 2[a1 + 2a2 + a3] + nu + 6 e1 + 4 e2 = 19 eps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from heliograph.postprocessing.secrecy import lim2014
from heliograph.postprocessing.secrecy.concentration import fung_ma_chau
from heliograph.postprocessing.secrecy.count_bounds import HOEFFDING, Method, bound_counts, mean_of_coin_flips
from heliograph.postprocessing.secrecy.photons import SMALLEST, WeakPulses
from heliograph.types import IntensityCounts

__all__ = ["EPSILON_PARTS", "GAMMA_PARTS", "Terms", "bounds", "secret_key_length"]

# From the security proof.
EPSILON_PARTS: Final = 19
GAMMA_PARTS: Final = 21  # as printed

Told = tuple[tuple[float, ...] | None, tuple[float, ...] | None]  # predicted (detections, errors) of one basis


@dataclass(frozen=True, slots=True)
class Terms:
    """What the bound says. Counts unless a rate; every field is finite.

    ``s0_lower``, ``s0_upper``, ``s1_lower``: vacuum and single-photon detections in the key basis; ``s0_test_upper``,
    ``s1_test_lower``: in the test basis; ``v1_upper``: single-photon errors in the test basis; ``gamma``: what sampling
    adds to their rate; ``phase_error_upper``: rate among the key basis' single photons, at most 1/2.
    """

    s0_lower: float
    s0_upper: float
    s0_test_upper: float
    s1_lower: float
    s1_test_lower: float
    v1_upper: float
    gamma: float
    phase_error_upper: float


def bounds(
    key: IntensityCounts, test: IntensityCounts, source: WeakPulses, eps_sec: float, method: Method = HOEFFDING
) -> Terms:
    """Bound vacuum and single-photon detections and the phase error rate from two intensities' counts.

    A decoy of 0, or next to it, tells nothing about single photons: their bound is 0 then. Raises ConfigurationError
    for another source, ValueError for counts of another shape or ``eps_sec`` outside (0, 1).
    """
    source.check(2, "rusca2018")
    if not len(key.detections) == len(test.detections) == 2:
        raise ValueError("counts for exactly two intensities are needed")
    if not 0 < eps_sec < 1:
        raise ValueError(f"eps_sec = {eps_sec}: must lie strictly between 0 and 1")
    ln_inverse_eps = math.log(EPSILON_PARTS) - math.log(eps_sec)
    told = method.prediction
    key_told: Told = (told.key_counts, told.key_errors) if told else (None, None)
    test_told: Told = (told.test_counts, told.test_errors) if told else (None, None)

    # (1) vacuum and single-photon detections of each basis
    s0_lower, s0, s1 = _photon_events(key, source, ln_inverse_eps, method, key_told)
    _, s0_test, s1_test = _photon_events(test, source, ln_inverse_eps, method, test_told)
    # (2) single-photon errors of the test basis
    wrong = bound_counts(test.errors, method.bound, ln_inverse_eps, test_told[1])
    signal, decoy = source.intensities
    v1 = source.tau(1) / (signal - decoy) * (source.weight(0) * wrong.upper[0] - source.weight(1) * wrong.lower[1])
    v1 = max(0.0, v1)
    # (3) the phase error rate; where no single photon is known, 1/2
    if s1 == 0 or s1_test == 0:
        return Terms(s0_lower, s0, s0_test, s1, s1_test, v1, gamma=0.5, phase_error_upper=0.5)
    rate = min(0.5, v1 / s1_test)
    gamma = fung_ma_chau(s1, s1_test, rate, math.log(GAMMA_PARTS) - math.log(eps_sec))
    return Terms(s0_lower, s0, s0_test, s1, s1_test, v1, gamma, min(0.5, rate + gamma))


def secret_key_length(terms: Terms, disclosed_bits: int, eps_sec: float, eps_cor: float) -> float:
    """Return the length before floor and clamp, in bits.

    s0 + s1 (1 - h(phase)) - lambda - 6 log2(19/eps_sec) - log2(2/eps_cor).
    """
    return lim2014.secret_key_length(
        terms.s0_lower, terms.s1_lower, terms.phase_error_upper, disclosed_bits, eps_sec, eps_cor, EPSILON_PARTS
    )


def _photon_events(
    counts: IntensityCounts, source: WeakPulses, ln_inverse_eps: float, method: Method, told: Told
) -> tuple[float, float, float]:
    """Return (vacuum at least, vacuum at most, single-photon at least) of one basis' detections."""
    n = sum(counts.detections)
    detected = bound_counts(counts.detections, method.bound, ln_inverse_eps, told[0])
    wrong = bound_counts(counts.errors, method.bound, ln_inverse_eps, told[1])
    signal, decoy = source.intensities
    tau0, tau1 = source.tau(0), source.tau(1)
    signal_upper, decoy_lower = source.weight(0) * detected.upper[0], source.weight(1) * detected.lower[1]

    s0_lower = tau0 / (signal - decoy) * (signal * decoy_lower - decoy * signal_upper)
    s0_lower = min(float(n), max(0.0, s0_lower))
    s0_upper = min(
        2 * mean_of_coin_flips(tau0 * source.weight(i) * wrong.upper[i], n, method.bound, ln_inverse_eps)
        for i in range(2)
    )
    if decoy < SMALLEST:
        return s0_lower, s0_upper, 0.0
    s1 = (
        tau1
        * signal
        / (decoy * (signal - decoy))
        * (decoy_lower - (decoy / signal) ** 2 * signal_upper - (signal**2 - decoy**2) / signal**2 * s0_upper / tau0)
    )
    # Less than one event is none; together they are no more than what was detected.
    s1 = min(n - s0_lower, s1)
    return s0_lower, s0_upper, (s1 if s1 >= 1 else 0.0)
