"""Single-photon detectors: their figures, and how long they are dead."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["LIM_2014", "DetectorParameters", "dead_slots"]


@dataclass(frozen=True, slots=True)
class DetectorParameters:
    """Two equal threshold detectors behind one active basis choice.

    ``efficiency``: detections per arriving photon; ``dark_count_probability``: per gate and detector;
    ``afterpulse_probability``: that a click is followed by an afterpulse in the same detector, if nothing else clicks
    first; ``afterpulse_decay_s``: mean of the exponential delay, from the end of the dead time; ``dead_time_s``: after
    any click both detectors are gated off that long (security.md 9). Raises ValueError outside the possible ranges.
    """

    efficiency: float
    dark_count_probability: float
    afterpulse_probability: float
    afterpulse_decay_s: float
    dead_time_s: float

    def __post_init__(self) -> None:
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency = {self.efficiency}: must lie in (0, 1]")
        if not 0 <= self.dark_count_probability < 1:
            raise ValueError(f"dark_count_probability = {self.dark_count_probability}: must lie in [0, 1)")
        if not 0 <= self.afterpulse_probability < 1:
            raise ValueError(f"afterpulse_probability = {self.afterpulse_probability}: must lie in [0, 1)")
        for name, seconds in (("afterpulse_decay_s", self.afterpulse_decay_s), ("dead_time_s", self.dead_time_s)):
            if not 0 <= seconds <= 1:
                raise ValueError(f"{name} = {seconds}: must lie in [0, 1] s")


# Efficiency, dark counts and afterpulses: InGaAs avalanche photodiodes of Lim et al. 2014 (PRA 89 022307), Fig. 1.
# Our choice, since their model has neither: a dead time of 1 us, and an afterpulse decay of 1 us after it.
LIM_2014: Final = DetectorParameters(
    efficiency=0.10,
    dark_count_probability=6e-7,
    afterpulse_probability=4e-2,
    afterpulse_decay_s=1e-6,
    dead_time_s=1e-6,
)


def dead_slots(dead_time_s: float, clock_hz: float) -> int:
    """Return how many slots after a click are dead: the dead time in slots, rounded up.

    Raises ValueError for a negative or infinite time.
    """
    slots = dead_time_s * clock_hz
    if not (math.isfinite(slots) and slots >= 0):
        raise ValueError(f"dead_time_s = {dead_time_s}: must be finite and not negative")
    # 1 us at 1 GHz is 1000 slots whatever the last digit of the product: a millionth of a slot is no slot.
    return math.ceil(slots - 1e-6)
