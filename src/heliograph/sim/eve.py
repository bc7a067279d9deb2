"""Eve on the fibre: she takes the light, keeps a record, and sends light on.

An attack maps (intensity, state, basis) of a pulse to the light that goes on, from which the channel's detection
probabilities follow, and to Eve's record. It never sees the receiver's bases. This port is for attacks that keep the
pulse's intensity; splitting by photon number or blinding detectors needs another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from heliograph.sim.randomness import Generator
from heliograph.types import Basis, Marks, Pulses

__all__ = ["Attack", "EveRecord", "InterceptResend", "Intercepted"]


@dataclass(frozen=True, slots=True)
class EveRecord:
    """What Eve knows, one entry for each slot: whether she measured, in which basis, and her result.

    ``bases`` and ``bits`` are 0 where ``measured`` is 0.
    """

    measured: Marks
    bases: Marks
    bits: Marks = field(repr=False)


@dataclass(frozen=True, slots=True)
class Intercepted:
    """The light that goes on to the receiver, and Eve's record of what came in."""

    light: Pulses
    record: EveRecord


class Attack(Protocol):
    """An attack on the light. Slots are independent, and ``intensities`` go on unchanged."""

    def intercept(self, light: Pulses, generator: Generator) -> Intercepted:
        """Take the light of some slots and return what goes on, arrays of the same length."""


@dataclass(frozen=True, slots=True)
class InterceptResend:
    """Measure a fraction of the pulses perfectly and send the result on in the same basis and intensity.

    In a random basis (``z_probability`` 1/2) the error rate of both bases becomes Q0 + (p/4)(1-2 Q0) (theory.md 3,
    row 1); always in the key basis (``z_probability`` 1) the key basis keeps Q0 and the test basis goes to
    Q0 + (p/2)(1-2 Q0) (row 2). Raises ValueError unless both lie in [0, 1].
    """

    fraction: float
    z_probability: float = 0.5

    def __post_init__(self) -> None:
        for name, p in (("fraction", self.fraction), ("z_probability", self.z_probability)):
            if not 0 <= p <= 1:
                raise ValueError(f"{name} = {p}: must lie in [0, 1]")

    def intercept(self, light: Pulses, generator: Generator) -> Intercepted:
        """Return the light as resent. A measurement in the wrong basis gives a random bit."""
        dice = generator.random((3, len(light.bits)))
        measured = dice[0] < self.fraction
        bases = np.where(dice[1] < self.z_probability, np.uint8(Basis.Z), np.uint8(Basis.X))
        bits = np.where(bases == light.bases, light.bits, (dice[2] < 0.5).astype(np.uint8))
        resent = Pulses(
            bases=np.where(measured, bases, light.bases),
            intensities=light.intensities,
            bits=np.where(measured, bits, light.bits),
        )
        marks = measured.astype(np.uint8)
        return Intercepted(resent, EveRecord(marks, bases * marks, bits * marks))
