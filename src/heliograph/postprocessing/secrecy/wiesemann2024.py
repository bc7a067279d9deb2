"""The finite-key length of 1-decoy BB84, after Wiesemann et al.

J. Wiesemann, J. Krause, D. Tupkary, N. Luetkenhaus, D. Rusca, N. Walenta, "A consolidated and accessible security proof
for finite-size decoy-state quantum key distribution", arXiv:2405.16578. The paper names the key basis X; here it is Z,
as in Rusca et al. 2018, and X is the test basis.

Three choices where a reader may look for a difference (security.md 5):

- The upper bound on vacuum events uses one intensity that is fixed in advance, ``VACUUM_INTENSITY``. The authors' code
  takes the smaller of both, for which the union bound would have to be paid.
- The lower bound on vacuum events is not credited to the length.
- Verification is charged with the bits really sent, and log2(2/eps_cor) is kept: at most 51 bits too careful at 1e-15.

The formulas follow theory.md 1.5 and the authors' published program, term by term; the constants of the length
(four times log2 of 15/(eps_sec 2^(1/4)), eps_sec split in 15 parts) are theirs and are not derived again here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.concentration import serfling
from heliograph.postprocessing.secrecy.count_bounds import HOEFFDING, Method, bound_counts, mean_of_coin_flips
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.photons import WeakPulses
from heliograph.types import IntensityCounts, LightParameters

__all__ = ["EPSILON_PARTS", "VACUUM_INTENSITY", "Terms", "bounds", "check_light", "secret_key_length"]

# From the security proof.
EPSILON_PARTS: Final = 15  # eps_sec = 15 eps0

# Our choice.
VACUUM_INTENSITY: Final = 1  # index of the decoy: its few signal errors make the tighter bound at our block sizes
SMALLEST: Final = 1e-6  # intensities, their difference and their probabilities: keeps every term finite
BRIGHTEST: Final = 10.0  # mean photons per pulse; beyond it nothing is a weak pulse

Told = tuple[tuple[float, ...] | None, tuple[float, ...] | None]  # predicted (detections, errors) of one basis
_NONE: Final[tuple[Told, Told]] = ((None, None), (None, None))


@dataclass(frozen=True, slots=True)
class Terms:
    """What the bound says about a block. Counts unless a rate; every field is finite.

    ``s0_upper``, ``s1_lower``: vacuum and single-photon detections in the key basis; ``s0_test_upper``,
    ``s1_test_lower``: in the test basis; ``v1_upper``: single-photon errors in the test basis; ``serfling``: what
    sampling adds to the error rate; ``phase_error_upper``: rate among the key basis' single photons, at most 1/2.
    """

    s0_upper: float
    s0_test_upper: float
    s1_lower: float
    s1_test_lower: float
    v1_upper: float
    serfling: float
    phase_error_upper: float


def check_light(light: LightParameters) -> None:
    """Raise ConfigurationError unless the light is one signal and one decoy that the bound can work with."""
    if len(light.intensities) != 2:
        raise ConfigurationError(
            f"intensities = {light.intensities}: the 1-decoy bound needs exactly two, a signal and a decoy"
        )
    signal, decoy = light.intensities
    if not (SMALLEST <= decoy <= signal - SMALLEST and signal <= BRIGHTEST):
        raise ConfigurationError(
            f"intensities = {light.intensities}: need {SMALLEST} <= decoy < signal <= {BRIGHTEST} photons per pulse, "
            f"at least {SMALLEST} apart"
        )
    if min(light.intensity_probabilities) < SMALLEST:
        raise ConfigurationError(
            f"intensity_probabilities = {light.intensity_probabilities}: each must be at least {SMALLEST}"
        )


def bounds(
    key: IntensityCounts, test: IntensityCounts, light: LightParameters, eps_sec: float, method: Method = HOEFFDING
) -> Terms:
    """Bound the single-photon detections and their phase error rate from the announced counts.

    ``key`` needs the key basis' error counts, which are exact only after reconciliation. ``method`` replaces the
    paper's Hoeffding bounds one for one, so eps_sec stays split in 15. Raises ConfigurationError for light that is not
    1-decoy, ValueError for counts of another shape or ``eps_sec`` outside (0, 1).
    """
    check_light(light)
    if len(key.detections) != 2 or len(test.detections) != 2:
        raise ValueError("counts for exactly two intensities are needed")
    if not 0 < eps_sec < 1:
        raise ValueError(f"eps_sec = {eps_sec}: must lie strictly between 0 and 1")
    ln_inverse_eps = math.log(EPSILON_PARTS) - math.log(eps_sec)

    # (1) vacuum and single-photon detections of each basis
    told = method.prediction
    key_told, test_told = ((told.key_counts, told.key_errors), (told.test_counts, told.test_errors)) if told else _NONE
    s0, s1 = _photon_events(key, light, ln_inverse_eps, method, key_told)
    s0_test, s1_test = _photon_events(test, light, ln_inverse_eps, method, test_told)
    # (2) single-photon errors of the test basis
    v1 = _single_photon_errors(test, light, ln_inverse_eps, method, test_told)
    # (3) from the test basis' error rate to the key basis' phase error rate; none known means 1/2
    if s1 == 0 or s1_test == 0:
        return Terms(s0, s0_test, s1, s1_test, v1, serfling=0.5, phase_error_upper=0.5)
    deviation = serfling(s1, s1_test, ln_inverse_eps)
    return Terms(s0, s0_test, s1, s1_test, v1, deviation, min(0.5, v1 / s1_test + deviation))


def secret_key_length(
    single_photons_lower: float, phase_error_upper: float, disclosed_bits: int, eps_sec: float, eps_cor: float
) -> float:
    """Return the length before floor and clamp, in bits; zero or less means that the block yields no key.

    ``disclosed_bits`` is everything charged: parities by the two-way rule plus the verification bits really sent.
    arXiv:2405.16578, main result: s1 (1 - h(phase)) - lambda - log2(2/eps_cor) - 4 log2(15/(eps_sec 2^(1/4))).
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
    correctness = 1 - math.log2(eps_cor)
    secrecy = 4 * (math.log2(EPSILON_PARTS) - math.log2(eps_sec) - 0.25)
    return single_photons_lower * (1 - binary_entropy(phase_error_upper)) - disclosed_bits - correctness - secrecy


def _photon_events(
    counts: IntensityCounts, light: LightParameters, ln_inverse_eps: float, method: Method, told: Told
) -> tuple[float, float]:
    """Return (vacuum detections at most, single-photon detections at least) of one basis."""
    n, c = sum(counts.detections), sum(counts.errors)
    detected = bound_counts(counts.detections, method.bound, ln_inverse_eps, told[0])
    wrong = bound_counts(counts.errors, method.bound, ln_inverse_eps, told[1])
    source = WeakPulses(light.intensities, light.intensity_probabilities)
    tau0, tau1 = source.tau(0), source.tau(1)
    signal, decoy = light.intensities

    # A vacuum pulse holds no bit, so half of its detections are errors: twice the errors bound the vacuum events.
    c_upper = tau0 * source.weight(VACUUM_INTENSITY) * min(c, wrong.upper[VACUUM_INTENSITY])
    s0 = min(n, 2 * mean_of_coin_flips(c_upper, n, method.bound, ln_inverse_eps))

    decoy_lower = max(0.0, detected.lower[1])
    signal_upper = min(n, detected.upper[0])
    s1 = (tau1 * signal / (decoy * (signal - decoy))) * (
        source.weight(1) * decoy_lower
        - (decoy / signal) ** 2 * source.weight(0) * signal_upper
        - (signal**2 - decoy**2) / signal**2 * s0 / tau0
    )
    # Less than one event is none; it also keeps Serfling's terms finite.
    return s0, (min(n, s1) if s1 >= 1 else 0.0)


def _single_photon_errors(
    counts: IntensityCounts, light: LightParameters, ln_inverse_eps: float, method: Method, told: Told
) -> float:
    """Return the single-photon errors at most, of one basis."""
    c = sum(counts.errors)
    wrong = bound_counts(counts.errors, method.bound, ln_inverse_eps, told[1])
    source = WeakPulses(light.intensities, light.intensity_probabilities)
    signal, decoy = light.intensities
    signal_upper = min(c, wrong.upper[0])
    decoy_lower = max(0.0, wrong.lower[1])
    v1 = source.tau(1) / (signal - decoy) * (source.weight(0) * signal_upper - source.weight(1) * decoy_lower)
    return min(float(sum(counts.detections)), max(0.0, v1))
