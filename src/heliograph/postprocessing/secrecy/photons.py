"""Weak pulses of random phase: what each intensity's counts say about n-photon events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from heliograph.errors import ConfigurationError

__all__ = ["BRIGHTEST", "SMALLEST", "WeakPulses"]

# Our choice.
SMALLEST: Final = 1e-6  # intensities' differences and probabilities: keeps every term finite
BRIGHTEST: Final = 10.0  # mean photons per pulse; beyond it nothing is a weak pulse


@dataclass(frozen=True, slots=True)
class WeakPulses:
    """Intensities (mean photons per pulse) and their probabilities; the photon number is Poissonian for each."""

    intensities: tuple[float, ...]
    probabilities: tuple[float, ...]

    def tau(self, photons: int) -> float:
        """Return tau_n, the probability that a pulse of unknown intensity holds n photons (theory.md 1.3)."""
        return math.fsum(
            p * math.exp(-k) * k**photons / math.factorial(photons)
            for k, p in zip(self.intensities, self.probabilities, strict=True)
        )

    def weight(self, index: int) -> float:
        """Return e^k / p_k of one intensity: turns its counts into those of pulses of unknown intensity."""
        return math.exp(self.intensities[index]) / self.probabilities[index]

    def check(self, count: int, theorem: str) -> None:
        """Raise ConfigurationError unless there are ``count`` intensities, apart enough for every term to be finite.

        The lowest may be 0.
        """
        if len(self.intensities) != count:
            raise ConfigurationError(
                f"intensities = {list(self.intensities)}: {theorem} needs exactly {count}, strictly descending"
            )
        if not all(a - b >= SMALLEST for a, b in pairwise(self.intensities)):
            raise ConfigurationError(
                f"intensities = {list(self.intensities)}: must be strictly descending, at least {SMALLEST:g} apart"
            )
        if self.intensities[0] > BRIGHTEST:
            raise ConfigurationError(
                f"intensities = {list(self.intensities)}: above {BRIGHTEST:g} photons per pulse, no pulse is weak"
            )
        if min(self.probabilities) < SMALLEST:
            raise ConfigurationError(f"probabilities = {list(self.probabilities)}: each must be at least {SMALLEST:g}")
