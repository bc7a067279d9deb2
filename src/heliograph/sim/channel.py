"""Fibre plus detectors in closed form (theory.md 1.1): the figures that the sampler must reproduce.

All probabilities are per slot with both detectors alive, so without dead time and afterpulses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from heliograph.sim.detectors import DetectorParameters

__all__ = ["Channel", "FibreParameters"]


@dataclass(frozen=True, slots=True)
class FibreParameters:
    """The way from transmitter to detector. Raises ValueError outside the possible ranges.

    ``receiver_loss_db``: loss inside the receiver, beside the detectors' efficiency; ``misalignment``: share of the
    light that goes to the wrong detector when the bases agree (e_mis of Lim et al. 2014, Fig. 1).
    """

    distance_km: float
    attenuation_db_per_km: float = 0.2
    receiver_loss_db: float = 0.0
    misalignment: float = 5e-3

    def __post_init__(self) -> None:
        for name, value in (
            ("distance_km", self.distance_km),
            ("attenuation_db_per_km", self.attenuation_db_per_km),
            ("receiver_loss_db", self.receiver_loss_db),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} = {value}: must be finite and not negative")
        if not 0 <= self.misalignment <= 0.5:
            raise ValueError(f"misalignment = {self.misalignment}: must lie in [0, 0.5]")

    @property
    def transmittance(self) -> float:
        """Share of the photons that reach the detectors, 10^(-dB/10)."""
        return 10 ** (-(self.attenuation_db_per_km * self.distance_km + self.receiver_loss_db) / 10)


@dataclass(frozen=True, slots=True)
class Channel:
    """Closed forms for coherent light of random phase on two threshold detectors (theory.md 1.1).

    ``mean_photons`` is that of the pulse as it leaves the transmitter.
    """

    fibre: FibreParameters
    detectors: DetectorParameters

    @property
    def eta(self) -> float:
        """Detections per photon sent."""
        return self.fibre.transmittance * self.detectors.efficiency

    def fire_probability(self, mean_photons: float, share: float) -> float:
        """Probability that one detector fires when ``share`` of the light goes to it: 1-(1-p_d)exp(-eta mu share)."""
        return -math.expm1(math.log1p(-self.detectors.dark_count_probability) - self.eta * mean_photons * share)

    def exponent(self, mean_photons: float) -> float:
        """Return -ln of the probability that nothing clicks: eta mu - 2 ln(1-p_d), whatever the bases."""
        return self.eta * mean_photons - 2 * math.log1p(-self.detectors.dark_count_probability)

    def click_probability(self, mean_photons: float) -> float:
        """Gain Q, exact: 1-(1-Y0)exp(-eta mu) with Y0 = 1-(1-p_d)^2; the same in matched and crossed bases."""
        return -math.expm1(-self.exponent(mean_photons))

    def error_rate(self, mean_photons: float) -> float:
        """Errors per click in matched bases, exact; a double click has a random bit: [Pw(1-Pc) + Pc Pw/2]/Q.

        0 where nothing ever clicks. In crossed bases the bit is random and the rate is 1/2.
        """
        gain = self.click_probability(mean_photons)
        right = self.fire_probability(mean_photons, 1 - self.fibre.misalignment)
        wrong = self.fire_probability(mean_photons, self.fibre.misalignment)
        return (wrong * (1 - right) + right * wrong / 2) / gain if gain else 0.0

    def double_click_probability(self, mean_photons: float, *, matched: bool) -> float:
        """Probability that both detectors fire: Pc Pw, or (1-(1-p_d)exp(-eta mu/2))^2 in crossed bases."""
        share = self.fibre.misalignment if matched else 0.5
        return self.fire_probability(mean_photons, share) * self.fire_probability(mean_photons, 1 - share)

    def first_order_gain(self, mean_photons: float) -> float:
        """Gain as printed in Ma et al. 2005, Eq. 10: Y0 + 1 - exp(-eta mu). A sum, not a union: may exceed 1."""
        return self._background - math.expm1(-self.eta * mean_photons)

    def first_order_error_rate(self, mean_photons: float) -> float:
        """Errors per click from E Q = Y0/2 + e_mis (1 - exp(-eta mu)) and the first-order gain (Ma et al. 2005)."""
        gain = self.first_order_gain(mean_photons)
        errors = self._background / 2 - self.fibre.misalignment * math.expm1(-self.eta * mean_photons)
        return errors / gain if gain else 0.0

    @property
    def _background(self) -> float:
        """Y0 = 1-(1-p_d)^2."""
        return -math.expm1(2 * math.log1p(-self.detectors.dark_count_probability))
