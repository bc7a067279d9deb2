"""The theorems' bounds for many lights and counts at once: what a search asks thousands of times.

Term by term the readable functions (``wiesemann2024``, ``lim2014``, ``lim2014_serfling``, ``rusca2018``) with
Hoeffding's deviations, in numpy. They only steer the search: every length that leaves this package is computed by the
readable ones, and a test compares the two (tests/unit/postprocessing/test_secrecy_batch.py).

Shapes: the FIRST axis of counts, intensities and weights is the intensity, signal first; the axes after it are
anything that fits together, such as (light, variant). Floats hold the counts, exact below 2^53.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from heliograph.postprocessing.secrecy import lim2014, rusca2018, wiesemann2024

__all__ = ["BATCH_THEOREMS", "BatchTheorem", "Floats", "ManyCounts", "ManySources", "binary_entropies"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ManyCounts:
    """Detections and errors of one basis; both of one shape."""

    detections: Floats
    errors: Floats


@dataclass(frozen=True, slots=True)
class ManySources:
    """``intensities``; ``weights`` e^k / p_k; ``tau0``, ``tau1``: chances of no photon and of one, whatever the k."""

    intensities: Floats
    weights: Floats
    tau0: Floats
    tau1: Floats

    @staticmethod
    def of(intensities: Floats, probabilities: Floats) -> ManySources:
        """Return the sources of these intensities and their probabilities."""
        rise = np.exp(intensities)
        share = probabilities / rise
        return ManySources(intensities, rise / probabilities, share.sum(axis=0), (share * intensities).sum(axis=0))


@dataclass(frozen=True, slots=True)
class BatchTheorem:
    """A theorem's bounds, basis by basis.

    ``photons(counts, source, ln(parts/eps_sec))``: vacuum and single-photon detections at least; ``errors``, with the
    same arguments and those of the test basis: single-photon errors at most. ``sampling(key, test, rate, ln)`` is what
    is added to the test basis' rate, with ``sampling_parts`` of eps_sec. ``credits_vacuum``: whether the length counts
    vacuum events.
    """

    parts: int
    photons: Callable[[ManyCounts, ManySources, float], tuple[Floats, Floats]]
    errors: Callable[[ManyCounts, ManySources, float], Floats]
    sampling: Callable[[Floats, Floats, Floats, float], Floats]
    sampling_parts: int
    credits_vacuum: bool

    def phase_error_upper(self, s1: Floats, s1_test: Floats, v1: Floats, eps_sec: float) -> Floats:
        """Return the phase error rate at most, 1/2 where no single photon is known."""
        known = (s1 > 0) & (s1_test > 0)
        c, d = np.where(known, s1, 1.0), np.where(known, s1_test, 1.0)
        rate = np.minimum(0.5, v1 / d)
        added = self.sampling(c, d, rate, math.log(self.sampling_parts) - math.log(eps_sec))
        found: Floats = np.where(known, np.minimum(0.5, rate + added), 0.5)
        return found


def binary_entropies(x: Floats) -> Floats:
    """Return h(x) for each x in [0, 1]."""
    inside = np.clip(x, 1e-300, 1 - 2**-53)
    bits = -inside * np.log2(inside) - (1 - inside) * np.log1p(-inside) / math.log(2)
    found: Floats = np.where((x > 0) & (x < 1), bits, 0.0)
    return found


def _hoeffding(total: Floats, ln: float) -> Floats:
    found: Floats = np.sqrt(total / 2 * ln)
    return found


def _serfling(c: Floats, d: Floats, _: Floats, ln: float) -> Floats:
    found: Floats = np.sqrt((c + d) / (c * d) * (d + 1) / d * ln)
    return found


def _fung_ma_chau(c: Floats, d: Floats, rate: Floats, ln: float) -> Floats:
    inverse = 1 / c + 1 / d
    b = np.minimum(0.5, np.maximum(rate, 1 / d))
    log2 = (np.log(inverse / ((1 - b) * b)) + 2 * ln) / math.log(2)
    found: Floats = np.sqrt(inverse * (1 - b) * b / math.log(2) * np.maximum(0.0, log2))
    return found


def _at_least_one(events: Floats) -> Floats:
    found: Floats = np.where(events >= 1, events, 0.0)
    return found


def _one_decoy(source: ManySources, decoy_lower: Floats, signal_upper: Floats, s0_upper: Floats) -> Floats:
    """Return the single-photon events of one basis from the weighted counts (theory.md 1.4), before any clamp."""
    signal, decoy = source.intensities
    ratio = (decoy / signal) ** 2
    found: Floats = (source.tau1 * signal / (decoy * (signal - decoy))) * (
        decoy_lower - ratio * signal_upper - (1 - ratio) * s0_upper / source.tau0
    )
    return found


def _wiesemann_photons(counts: ManyCounts, source: ManySources, ln: float) -> tuple[Floats, Floats]:
    n, c = counts.detections.sum(axis=0), counts.errors.sum(axis=0)
    spread = _hoeffding(n, ln)
    vacuum = wiesemann2024.VACUUM_INTENSITY
    wrong = source.tau0 * source.weights[vacuum] * np.minimum(c, counts.errors[vacuum] + _hoeffding(c, ln))
    s0_upper = np.minimum(n, 2 * (wrong + spread))
    decoy_lower = source.weights[1] * np.maximum(0.0, counts.detections[1] - spread)
    signal_upper = source.weights[0] * np.minimum(n, counts.detections[0] + spread)
    s1 = _one_decoy(source, decoy_lower, signal_upper, s0_upper)
    return np.zeros_like(s1), np.minimum(n, _at_least_one(s1))


def _wiesemann_errors(test: ManyCounts, source: ManySources, ln: float) -> Floats:
    n, c = test.detections.sum(axis=0), test.errors.sum(axis=0)
    spread = _hoeffding(c, ln)
    upper, lower = np.minimum(c, test.errors[0] + spread), np.maximum(0.0, test.errors[1] - spread)
    gap = source.intensities[0] - source.intensities[1]
    v1 = source.tau1 / gap * (source.weights[0] * upper - source.weights[1] * lower)
    found: Floats = np.minimum(n, np.maximum(0.0, v1))
    return found


def _rusca_photons(counts: ManyCounts, source: ManySources, ln: float) -> tuple[Floats, Floats]:
    n, c = counts.detections.sum(axis=0), counts.errors.sum(axis=0)
    spread = _hoeffding(n, ln)
    signal, decoy = source.intensities
    decoy_lower = source.weights[1] * (counts.detections[1] - spread)
    signal_upper = source.weights[0] * (counts.detections[0] + spread)
    s0_lower = source.tau0 / (signal - decoy) * (signal * decoy_lower - decoy * signal_upper)
    s0_lower = np.minimum(n, np.maximum(0.0, s0_lower))
    wrong = (source.weights * (counts.errors + _hoeffding(c, ln))).min(axis=0)
    s1 = _one_decoy(source, decoy_lower, signal_upper, 2 * (source.tau0 * wrong + spread))
    return s0_lower, _at_least_one(np.minimum(n - s0_lower, s1))


def _printed_errors(many: int, few: int) -> Callable[[ManyCounts, ManySources, float], Floats]:
    """Return v1 from the errors at two intensities, ``many`` the brighter one, without a clamp but zero."""

    def errors(test: ManyCounts, source: ManySources, ln: float) -> Floats:
        spread = _hoeffding(test.errors.sum(axis=0), ln)
        gap = source.intensities[many] - source.intensities[few]
        upper, lower = test.errors[many] + spread, test.errors[few] - spread
        v1 = source.tau1 / gap * (source.weights[many] * upper - source.weights[few] * lower)
        found: Floats = np.maximum(0.0, v1)
        return found

    return errors


def _lim_photons(counts: ManyCounts, source: ManySources, ln: float) -> tuple[Floats, Floats]:
    n = counts.detections.sum(axis=0)
    spread = _hoeffding(n, ln)
    lower, upper = source.weights * (counts.detections - spread), source.weights * (counts.detections + spread)
    mu1, mu2, mu3 = source.intensities
    s0 = source.tau0 * (mu2 * lower[2] - mu3 * upper[1]) / (mu2 - mu3)
    s0 = np.minimum(n, np.maximum(0.0, s0))
    s1 = (
        source.tau1
        * mu1
        * (lower[1] - upper[2] - (mu2**2 - mu3**2) / mu1**2 * (upper[0] - s0 / source.tau0))
        / ((mu2 - mu3) * (mu1 - mu2 - mu3))
    )
    return s0, _at_least_one(np.minimum(n - s0, s1))


# By name. The light must be one that the readable functions accept.
BATCH_THEOREMS: Final[dict[str, BatchTheorem]] = {
    "wiesemann2024": BatchTheorem(
        parts=wiesemann2024.EPSILON_PARTS,
        photons=_wiesemann_photons,
        errors=_wiesemann_errors,
        sampling=_serfling,
        sampling_parts=wiesemann2024.EPSILON_PARTS,
        credits_vacuum=False,
    ),
    "rusca2018": BatchTheorem(
        parts=rusca2018.EPSILON_PARTS,
        photons=_rusca_photons,
        errors=_printed_errors(0, 1),
        sampling=_fung_ma_chau,
        sampling_parts=rusca2018.GAMMA_PARTS,
        credits_vacuum=True,
    ),
    "lim2014": BatchTheorem(
        parts=lim2014.EPSILON_PARTS,
        photons=_lim_photons,
        errors=_printed_errors(1, 2),
        sampling=_fung_ma_chau,
        sampling_parts=lim2014.EPSILON_PARTS,
        credits_vacuum=True,
    ),
    "lim2014-serfling": BatchTheorem(
        parts=lim2014.EPSILON_PARTS,
        photons=_lim_photons,
        errors=_printed_errors(1, 2),
        sampling=_serfling,
        sampling_parts=lim2014.EPSILON_PARTS,
        credits_vacuum=False,
    ),
}
