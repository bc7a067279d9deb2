"""What the choice of light is judged by: the key of one block, for a theorem, a block size and a link model.

Two kinds of theorem. Those a link may rest on (``theorems``) are judged by the preset length of the fixed policy with
its margins, as ``planning`` sets it. The published ones with the Fung-Ma-Chau gamma are judged as their papers draw
them: the length at the expected counts, without any margin, so that figures can be compared and nothing be promised.

The link model counts per emitted pulse with dead time included, so the light with the most key per pulse is also the
one with the most key per second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy import lim2014, rusca2018
from heliograph.postprocessing.secrecy.acceptance import VERIFICATION_BITS
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.link import LinkModel
from heliograph.postprocessing.secrecy.photons import WeakPulses
from heliograph.postprocessing.secrecy.planning import Counts, Margin, acceptance_for, expected_counts
from heliograph.postprocessing.secrecy.table import LightChoice
from heliograph.postprocessing.secrecy.theorems import theorem_named, theorem_names
from heliograph.types import Acceptance, LightParameters

__all__ = ["BLOCK_KINDS", "PRINTED", "PRINTED_MARGIN", "BlockSize", "Goal", "Outcome", "decoys_of", "judge"]

PRINTED: Final = {"rusca2018": 1, "lim2014": 2}  # published theorems and their decoys; no link rests on them
PRINTED_MARGIN: Final = Margin(sigmas=0.0, qber=0.0, detections=0.0, efficiency=1.16, constant_bits=0)
BLOCK_KINDS: Final = ("pulses", "sifted_bits", "key_bits")
Terms = rusca2018.Terms | lim2014.Terms


@dataclass(frozen=True, slots=True)
class BlockSize:
    """How large a block is: so many ``pulses``, or as many pulses as are expected to give so many detections.

    ``sifted_bits`` counts both bases, ``key_bits`` the key basis alone: that is how papers draw their curves, but
    it lets the optimiser trade the test basis for ever longer blocks (theory.md 1.9). Either way the number of pulses
    is fixed before the block starts. Raises ConfigurationError for another kind or less than 1.
    """

    kind: str
    amount: int

    def __post_init__(self) -> None:
        if self.kind not in BLOCK_KINDS:
            raise ConfigurationError(f"block: {self.kind!r} must be one of {', '.join(BLOCK_KINDS)}")
        if self.amount < 1:
            raise ConfigurationError(f"block: {self.kind} = {self.amount} must be positive")


@dataclass(frozen=True, slots=True)
class Goal:
    """The theorem, the block and what it must withstand. ``margin`` defaults to the kind of theorem's own.

    Raises ConfigurationError for an unknown theorem, an epsilon outside (0, 1), ``key_bits`` where a link could be
    planned by it, or a tolerance for a published curve, which has none.
    """

    theorem: str
    block: BlockSize
    eps_sec: float
    eps_cor: float
    margin: Margin = field(default_factory=Margin)

    def __post_init__(self) -> None:
        decoys_of(self.theorem)
        for name, eps in (("eps_sec", self.eps_sec), ("eps_cor", self.eps_cor)):
            if not 0 < eps < 1:
                raise ConfigurationError(f"{name} = {eps}: must lie strictly between 0 and 1")
        if self.block.kind == "key_bits" and not self.printed:
            raise ConfigurationError(
                f"block: key_bits bounds no block's duration, so {self.theorem} is planned by pulses or sifted_bits; "
                f"key_bits is for the published curves of {', '.join(PRINTED)}"
            )
        m = self.margin
        if self.printed and (m.sigmas, m.qber, m.detections) != (0, 0, 0):
            raise ConfigurationError(f"margin: {self.theorem} is drawn as published, without tolerances")

    @property
    def printed(self) -> bool:
        """Whether this is a published curve, on which no key may rest."""
        return self.theorem in PRINTED


@dataclass(frozen=True, slots=True)
class Outcome:
    """A block with one choice of light. ``raw_length``: bits before floor and clamp.

    ``expected``: (key, test) counts of an honest link. ``acceptance`` under the fixed policy, ``terms`` for a published
    curve; the other is None. ``charged_bits``: all disclosed bits that the length pays for.
    """

    choice: LightChoice
    light: LightParameters
    expected: Counts
    raw_length: float
    charged_bits: int
    acceptance: Acceptance | None
    terms: Terms | None

    @property
    def secret_key_length(self) -> int:
        """Whole bits, never negative."""
        return max(0, math.floor(self.raw_length))

    @property
    def key_per_pulse(self) -> float:
        """Secret bits per emitted pulse, before the floor; negative where there is no key."""
        return self.raw_length / self.light.pulses


def decoys_of(theorem: str) -> int:
    """Return how many decoys a theorem's light has. Raises ConfigurationError for a theorem that is not known."""
    if theorem in PRINTED:
        return PRINTED[theorem]
    if theorem not in theorem_names():
        raise ConfigurationError(f"theorem = {theorem!r}: must be one of {', '.join((*theorem_names(), *PRINTED))}")
    return theorem_named(theorem).decoys


def judge(goal: Goal, link: LinkModel, choice: LightChoice) -> Outcome:
    """Return what a block with this light earns. Raises ConfigurationError for light the theorem does not cover."""
    light = _light(goal.block, link, choice)
    expected = expected_counts(link, light)
    if not goal.printed:
        theorem = theorem_named(goal.theorem)
        theorem.check_light(light)
        acceptance = acceptance_for(theorem, link, light, goal.eps_sec, goal.margin)
        charged = acceptance.disclosed_bits_max + VERIFICATION_BITS
        length = theorem.length(
            acceptance.single_photons_lower_min, acceptance.phase_error_upper_max, charged, goal.eps_sec, goal.eps_cor
        )
        return Outcome(choice, light, expected, length, charged, acceptance, None)
    key, test = expected
    source = WeakPulses(choice.intensities, choice.probabilities)
    disclosed = goal.margin.efficiency * sum(key.detections) * binary_entropy(min(0.5, key.error_rate))
    charged = math.ceil(disclosed) + goal.margin.constant_bits
    if goal.theorem == "lim2014":
        two = lim2014.bounds(key, test, source, goal.eps_sec)
        length = lim2014.secret_key_length(
            two.s0_lower, two.s1_lower, two.phase_error_upper, charged, goal.eps_sec, goal.eps_cor
        )
        return Outcome(choice, light, expected, length, charged, None, two)
    one = rusca2018.bounds(key, test, source, goal.eps_sec)
    length = rusca2018.secret_key_length(one, charged, goal.eps_sec, goal.eps_cor)
    return Outcome(choice, light, expected, length, charged, None, one)


def _light(block: BlockSize, link: LinkModel, choice: LightChoice) -> LightParameters:
    intensities, probabilities, z = choice.intensities, choice.probabilities, choice.z_probability
    if block.kind == "pulses":
        pulses = block.amount
    else:
        share = z**2 + (1 - z) ** 2 if block.kind == "sifted_bits" else z**2
        sifted = link.yields(intensities, probabilities).mean * share
        pulses = math.ceil(block.amount / sifted) if sifted > 0 else 0
    try:
        return LightParameters(
            pulses=pulses,
            clock_hz=link.clock_hz,
            intensities=intensities,
            intensity_probabilities=probabilities,
            transmitter_z_probability=z,
            receiver_z_probability=z,
        )
    except ValueError as refusal:
        raise ConfigurationError(
            f"no block of {block.amount} {block.kind} at {link.loss_db:.1f} dB: {refusal}"
        ) from None
