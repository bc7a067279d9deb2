"""Eve on the fibre: she takes the light, keeps a record, and sends light on.

An attack maps (intensity, state, basis) of a pulse to the light that goes on, from which the channel's detection
probabilities follow, and to Eve's record. It never sees the receiver's bases. This port is for attacks that keep the
pulse's intensity; splitting by photon number or blinding detectors needs another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from heliograph.types import Basis, Marks

__all__ = ["Attack", "EveRecord", "InterceptResend", "Outcome"]


@dataclass(frozen=True, slots=True)
class EveRecord:
    """What Eve knows, one entry for each slot: whether she measured, in which basis, and her result.

    ``bases`` and ``bits`` are 0 where ``measured`` is 0.
    """

    measured: Marks
    bases: Marks
    bits: Marks = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that may happen to a pulse: the state that goes on, and whether it is what Eve measured."""

    probability: float
    basis: int
    bit: int
    measured: bool


class Attack(Protocol):
    """An attack on the light. Slots are independent, and intensities go on unchanged."""

    def outcomes(self, intensity: int, basis: int, bit: int) -> tuple[Outcome, ...]:
        """Return what may become of a pulse of this intensity (its index) and state; probabilities sum to 1."""


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

    def outcomes(self, intensity: int, basis: int, bit: int) -> tuple[Outcome, ...]:  # noqa: ARG002  - the same for all
        """Return the five outcomes. A measurement in the wrong basis gives a random bit."""
        found = [Outcome(1 - self.fraction, basis, bit, measured=False)]
        for own, p in ((Basis.Z, self.z_probability), (Basis.X, 1 - self.z_probability)):
            for result in (0, 1):
                share = (1.0 if result == bit else 0.0) if own == basis else 0.5
                found.append(Outcome(self.fraction * p * share, int(own), result, measured=True))
        return tuple(found)
