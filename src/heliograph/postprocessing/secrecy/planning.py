"""Planning a block: pulses, acceptance set and length from what is known of the link, before the first pulse.

The thresholds stand a stated margin away from what an honest link is expected to give, so that nearly every honest
block is accepted. How wide that margin is changes the length and the share of discarded blocks, never the secrecy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.acceptance import check_parameters, preset_length
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.link import LinkModel
from heliograph.postprocessing.secrecy.table import LightChoice, look_up, reach_db
from heliograph.postprocessing.secrecy.theorems import Terms, Theorem, theorem_for
from heliograph.types import Acceptance, BlockParameters, IntensityCounts, LightParameters

__all__ = ["ONE_WAY_MARGIN", "Margin", "acceptance_for", "expected_counts", "light_for", "plan_block"]

DEFAULT_EPS: Final = 1e-15
SIFTED_CAP_SIGMAS: Final = 6.0  # only bounds work and memory, so it may be generous

Counts = tuple[IntensityCounts, IntensityCounts]


@dataclass(frozen=True, slots=True)
class Margin:
    """How far from the plan an honest block may be and still be accepted.

    ``sigmas``: standard deviations of each tested quantity, with Poisson counts; ``qber``: relative excess of the error
    rate; ``detections``: relative deviation of the detection rate, either way; ``efficiency`` and ``constant_bits``:
    what reconciliation may disclose, f * n h(QBER) + constant. Raises ConfigurationError for a value out of range.
    """

    sigmas: float = 4.0
    qber: float = 0.10
    detections: float = 0.02
    efficiency: float = 1.15
    constant_bits: int = 256

    def __post_init__(self) -> None:
        for name, value, least, below in (
            ("sigmas", self.sigmas, 0, math.inf),
            ("qber", self.qber, 0, math.inf),
            ("detections", self.detections, 0, 1),
            ("efficiency", self.efficiency, 1, math.inf),
            ("constant_bits", self.constant_bits, 0, math.inf),
        ):
            if not least <= value < below:
                raise ConfigurationError(f"margin: {name} = {value} must lie in [{least}, {below})")


# One-way codes disclose more, and are chosen by a rate that the test basis only estimates (ADR 0032).
ONE_WAY_MARGIN: Final = Margin(efficiency=1.3, constant_bits=1024)


def plan_block(
    name: str,
    link: LinkModel,
    target_bits: int,
    *,
    decoys: int = 1,
    light: LightChoice | None = None,
    eps_sec: float = DEFAULT_EPS,
    eps_cor: float = DEFAULT_EPS,
    margin: Margin | None = None,
) -> BlockParameters:
    """Return the parameters of blocks with about ``target_bits`` sifted bits, both bases together.

    Counting both bases keeps the block's duration bounded (theory.md 1.9). ``light`` defaults to the table's for
    so many ``decoys``, which also choose the theorem; light that is given decides that itself. Raises
    ConfigurationError, naming the largest loss in reach, if such a block yields no key on this link.
    """
    if target_bits < 1:
        raise ConfigurationError(f"{name}: target_bits = {target_bits} must be positive")
    theorem = theorem_for(decoys if light is None else light.decoys)
    choice = look_up(target_bits, link.loss_db, theorem.decoys).light if light is None else light
    parameters_of_light = light_for(link, target_bits, choice)
    theorem.check_light(parameters_of_light)
    acceptance = acceptance_for(theorem, link, parameters_of_light, eps_sec, margin or Margin())
    length = preset_length(theorem, acceptance, eps_sec, eps_cor)
    if length <= 0:
        raise ConfigurationError(
            f"{name}: blocks of {target_bits} sifted bits yield no key at {link.loss_db:.1f} dB (fibre and receiver); "
            f"with the default detectors such blocks reach {reach_db(target_bits, theorem.decoys):g} dB: "
            "take larger blocks, a shorter link or better detectors"
        )
    parameters = BlockParameters(name, parameters_of_light, acceptance, length, eps_sec, eps_cor, theorem.name)
    check_parameters(parameters, eps_sec_max=eps_sec, eps_cor_max=eps_cor)
    return parameters


def light_for(link: LinkModel, target_bits: int, choice: LightChoice) -> LightParameters:
    """Return the light whose expected sifted key, both bases together, has ``target_bits`` bits."""
    intensities, probabilities = choice.intensities, choice.probabilities
    z = choice.z_probability
    sifted = link.yields(intensities, probabilities).mean * (z**2 + (1 - z) ** 2)
    try:
        return LightParameters(
            pulses=math.ceil(target_bits / sifted) if sifted > 0 else 0,
            clock_hz=link.clock_hz,
            intensities=intensities,
            intensity_probabilities=probabilities,
            transmitter_z_probability=z,
            receiver_z_probability=z,
        )
    except ValueError as refusal:
        raise ConfigurationError(f"no block of {target_bits} sifted bits at {link.loss_db:.1f} dB: {refusal}") from None


def expected_counts(link: LinkModel, light: LightParameters, margin: Margin | None = None) -> Counts:
    """Return (key, test): the counts an honest link gives on average, rounded.

    With a margin: those of a link that detects less and errs more by its relative tolerances, before any fluctuation.
    """
    fewer = 1 - margin.detections if margin else 1.0
    worse = 1 + margin.qber if margin else 1.0
    yields = link.yields(light.intensities, light.intensity_probabilities)
    key = light.transmitter_z_probability * light.receiver_z_probability
    test = (1 - light.transmitter_z_probability) * (1 - light.receiver_z_probability)

    def counts(agreement: float) -> IntensityCounts:
        pulses = [light.pulses * agreement * p * fewer for p in light.intensity_probabilities]
        n = [round(m * y) for m, y in zip(pulses, yields.detections, strict=True)]
        c = [math.ceil(m * e * worse) for m, e in zip(pulses, yields.errors, strict=True)]
        return IntensityCounts(tuple(n), tuple(min(pair) for pair in zip(n, c, strict=True)))

    return counts(key), counts(test)


def acceptance_for(
    theorem: Theorem, link: LinkModel, light: LightParameters, eps_sec: float, margin: Margin
) -> Acceptance:
    """Return the acceptance set that an honest link within its tolerances misses at most rarely.

    Each tested quantity is taken at the tolerated counts and moved by ``margin.sigmas`` of its own standard deviation,
    to which every count adds as an independent Poisson variable. Four sigma: about one honest block in 10 000 fails.
    """
    worst = expected_counts(link, light, margin)

    def terms(counts: Counts) -> Terms:
        return theorem.bounds(*counts, light, eps_sec)

    expected = terms(worst)
    s1_sigma = _deviation(worst, lambda counts: terms(counts).s1_lower)
    phase_sigma = _deviation(worst, lambda counts: terms(counts).phase_error_upper)

    # lambda cap: the worst rates on as many bits as the tolerance allows
    bits_expected = sum(worst[0].detections) * (1 + margin.detections) / (1 - margin.detections)
    scale = bits_expected / max(1, sum(worst[0].detections))

    def shannon(counts: Counts) -> float:
        return scale * sum(counts[0].detections) * binary_entropy(min(0.5, counts[0].error_rate))

    disclosed = shannon(worst) + margin.sigmas * _deviation(worst, shannon)
    return Acceptance(
        single_photons_lower_min=float(max(0, math.floor(expected.s1_lower - margin.sigmas * s1_sigma))),
        phase_error_upper_max=min(0.5, expected.phase_error_upper + margin.sigmas * phase_sigma),
        disclosed_bits_max=math.ceil(margin.efficiency * disclosed) + margin.constant_bits,
        sifted_bits_max=math.ceil(bits_expected + SIFTED_CAP_SIGMAS * math.sqrt(bits_expected)),
    )


def _deviation(counts: Counts, quantity: Callable[[Counts], float]) -> float:
    """Return the standard deviation of ``quantity`` when right and wrong detections are Poisson variables.

    Each variable is moved by one of its own standard deviations, up and down, and the larger effect counts.
    """
    centre = quantity(counts)
    variance = 0.0
    for basis in range(2):
        for intensity in range(len(counts[basis].detections)):
            errors = counts[basis].errors[intensity]
            right = counts[basis].detections[intensity] - errors
            for more_right, more_wrong in ((math.isqrt(right) + 1, 0), (0, math.isqrt(errors) + 1)):
                effects = []
                for sign in (-1, 1):
                    r, w = max(0, right + sign * more_right), max(0, errors + sign * more_wrong)
                    effects.append(abs(quantity(_replace(counts, basis, intensity, r + w, w)) - centre))
                variance += max(effects) ** 2
    return math.sqrt(variance)


def _replace(counts: Counts, basis: int, intensity: int, detections: int, errors: int) -> Counts:
    changed = counts[basis]
    n, c = list(changed.detections), list(changed.errors)
    n[intensity], c[intensity] = detections, errors
    replaced = IntensityCounts(tuple(n), tuple(c))
    return (replaced, counts[1]) if basis == 0 else (counts[0], replaced)
