"""What an honest link is expected to count: a model for planning, never for judging a block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from heliograph.errors import ConfigurationError

__all__ = ["LinkModel", "Yields", "fibre_link"]

# Lim et al. 2014, Fig. 1, but for dead time, afterpulse decay and clock, which are our choice.
FIBRE_DB_PER_KM: Final = 0.2
DETECTOR_EFFICIENCY: Final = 0.10
DARK_COUNT_PROBABILITY: Final = 6e-7
AFTERPULSE_PROBABILITY: Final = 0.04
MISALIGNMENT: Final = 0.005
DEAD_TIME_S: Final = 1e-6
AFTERPULSE_DECAY_S: Final = 1e-6
CLOCK_HZ: Final = 1e9


@dataclass(frozen=True, slots=True)
class LinkModel:
    """A link as an operator knows it. Raises ConfigurationError for a value out of range.

    ``transmittance`` is fibre, receiver optics and detector efficiency together; ``dark_count_probability`` per gate
    and detector, two detectors; ``misalignment`` the chance that a photon goes to the wrong detector;
    ``afterpulse_probability`` that a click leaves an afterpulse behind; ``dead_time_s`` common to both detectors, not
    paralysable; ``afterpulse_decay_s`` the mean delay of an afterpulse from the end of the dead time, 0 (the most
    careful) if unknown: a slow one is often lost in a later dead time.
    """

    clock_hz: float
    transmittance: float
    dark_count_probability: float
    misalignment: float
    afterpulse_probability: float
    dead_time_s: float
    afterpulse_decay_s: float = 0.0

    def __post_init__(self) -> None:
        for name, value, most in (
            ("transmittance", self.transmittance, 1.0),
            ("dark_count_probability", self.dark_count_probability, 0.5),
            ("misalignment", self.misalignment, 0.5),
            ("afterpulse_probability", self.afterpulse_probability, 0.5),
        ):
            if not 0 <= value <= most:
                raise ConfigurationError(f"link: {name} = {value} must lie in [0, {most}]")
        if self.transmittance == 0:
            raise ConfigurationError("link: transmittance = 0: no light arrives; take a shorter fibre")
        if not (math.isfinite(self.clock_hz) and self.clock_hz > 0):
            raise ConfigurationError(f"link: clock_hz = {self.clock_hz} must be positive and finite")
        for name, seconds in (("dead_time_s", self.dead_time_s), ("afterpulse_decay_s", self.afterpulse_decay_s)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ConfigurationError(f"link: {name} = {seconds} must be finite and not negative")

    @property
    def loss_db(self) -> float:
        """Fibre, receiver and detector efficiency together, in dB."""
        return -10 * math.log10(self.transmittance)

    def yields(self, intensities: tuple[float, ...], probabilities: tuple[float, ...]) -> Yields:
        """Return what one pulse gives on average when both bases agree (theory.md 1.1, two threshold detectors).

        An afterpulse falls into a later slot, whose intensity is a fresh draw: it adds the same chance of a click, and
        half of that of an error, to every intensity. Without decay and to first order this is R = Q (1 + p) of Lim et
        al. 2014; afterpulses of afterpulses are included.
        """
        clicks = [self._click(k) for k in intensities]
        mean = math.fsum(p * q for p, (q, _) in zip(probabilities, clicks, strict=True))
        share = self._afterpulse_share(mean)
        after = mean * share / (1 - share)
        rate = mean + after
        live = 1 / (1 + rate * self.clock_hz * self.dead_time_s)
        return Yields(
            tuple(live * (q + after) for q, _ in clicks),
            tuple(live * (e + after / 2) for _, e in clicks),
            live * rate,
        )

    def _afterpulse_share(self, gain: float) -> float:
        """Return the share of afterpulses among all clicks: those whose exponential delay ends while live.

        It ends before the next click with probability r; if not, it survives that click's dead time with
        exp(-dead time / decay) and has the same chance again.
        """
        if self.afterpulse_decay_s == 0:
            return self.afterpulse_probability
        in_time = 1 / (1 + gain * self.clock_hz * self.afterpulse_decay_s)
        survives = math.exp(-self.dead_time_s / self.afterpulse_decay_s)
        return self.afterpulse_probability * in_time / (1 - (1 - in_time) * survives)

    def _click(self, intensity: float) -> tuple[float, float]:
        """Return the chances (of a click, of a wrong one) of a pulse; a double click is wrong half of the time."""
        light, dark = self.transmittance * intensity, 1 - self.dark_count_probability
        right = 1 - dark * math.exp(-light * (1 - self.misalignment))
        wrong = 1 - dark * math.exp(-light * self.misalignment)
        return 1 - (1 - right) * (1 - wrong), wrong * (1 - right) + right * wrong / 2


@dataclass(frozen=True, slots=True)
class Yields:
    """Probabilities per emitted pulse: of a detection and of an error given each intensity, and the mean detection."""

    detections: tuple[float, ...]
    errors: tuple[float, ...]
    mean: float


def fibre_link(distance_km: float = 25.0) -> LinkModel:
    """Return a link of standard fibre, the detectors of Lim et al. 2014, a 1 GHz clock, 1 us dead time and decay."""
    if not (math.isfinite(distance_km) and distance_km >= 0):
        raise ConfigurationError(f"distance_km = {distance_km}: give a length of 0 km or more, and finite")
    return LinkModel(
        clock_hz=CLOCK_HZ,
        transmittance=DETECTOR_EFFICIENCY * 10 ** (-FIBRE_DB_PER_KM * distance_km / 10),
        dark_count_probability=DARK_COUNT_PROBABILITY,
        misalignment=MISALIGNMENT,
        afterpulse_probability=AFTERPULSE_PROBABILITY,
        dead_time_s=DEAD_TIME_S,
        afterpulse_decay_s=AFTERPULSE_DECAY_S,
    )
