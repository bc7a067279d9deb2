"""The key of a block for many choices of light at once: ``objective.judge`` in numpy, to steer a search.

The same steps as ``link``, ``planning`` and ``objective``: yields, pulses, counts, thresholds, length. A light that
the readable functions refuse has the length minus infinity. The first axis of what belongs to an intensity is the
intensity, the next one the light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from heliograph.postprocessing.secrecy import lim2014
from heliograph.postprocessing.secrecy.acceptance import VERIFICATION_BITS
from heliograph.postprocessing.secrecy.batch_bounds import (
    BATCH_THEOREMS,
    Floats,
    ManyCounts,
    ManySources,
    binary_entropies,
)
from heliograph.postprocessing.secrecy.link import LinkModel
from heliograph.postprocessing.secrecy.objective import Goal
from heliograph.postprocessing.secrecy.photons import BRIGHTEST, SMALLEST
from heliograph.postprocessing.secrecy.theorems import theorem_named

__all__ = ["ManyLengths", "ManyLights", "lengths"]

Booleans = npt.NDArray[np.bool_]
PULSES_LIMIT: Final = 2.0**48  # types.LightParameters


@dataclass(frozen=True, slots=True)
class ManyLights:
    """Choices of light: ``intensities`` and ``probabilities`` signal first, shape (intensity, light); ``z`` (light)."""

    intensities: Floats
    probabilities: Floats
    z: Floats


@dataclass(frozen=True, slots=True)
class ManyLengths:
    """For each light: pulses of the block; what its single photons earn; what disclosure and proof cost, in bits."""

    pulses: Floats
    earned: Floats
    cost: Floats

    @property
    def raw_length(self) -> Floats:
        """Bits before floor and clamp."""
        found: Floats = self.earned - self.cost
        return found


def lengths(goal: Goal, link: LinkModel, lights: ManyLights) -> ManyLengths:
    """Return what a block with each light earns and costs."""
    k, p, z = lights.intensities, lights.probabilities, lights.z
    usable = _usable(k, p, z)
    # Refused lights are computed with a harmless one in their place, so that no warning is raised on their behalf.
    k = np.where(usable, k, np.arange(len(k), 0, -1.0)[:, None] ** 2 * 0.1)
    p = np.where(usable, p, 1 / len(k))
    z = np.where(usable, z, 0.5)
    detections, errors, mean = _yields(link, k, p)
    key_share, test_share = z * z, (1 - z) * (1 - z)
    if goal.block.kind == "pulses":
        pulses = np.full(len(z), float(goal.block.amount))
    else:
        sifted = mean * (key_share + test_share if goal.block.kind == "sifted_bits" else key_share)
        pulses = np.ceil(goal.block.amount / np.maximum(sifted, 1e-300))
    usable &= (pulses >= 1) & (pulses < PULSES_LIMIT)
    pulses = np.minimum(pulses, PULSES_LIMIT)

    def counts(share: Floats) -> ManyCounts:
        sent = pulses * share * p * (1 - goal.margin.detections)
        n = np.round(sent * detections)
        return ManyCounts(n, np.minimum(n, np.ceil(sent * errors * (1 + goal.margin.qber))))

    key, test = counts(key_share), counts(test_share)
    earned, cost = (_printed if goal.printed else _preset)(goal, key, test, k, p)
    return ManyLengths(pulses, np.where(usable, earned, -np.inf), cost)


def _usable(k: Floats, p: Floats, z: Floats) -> Booleans:
    apart = np.all(k[:-1] - k[1:] >= SMALLEST, axis=0) & (k[0] <= BRIGHTEST)
    fits: Booleans = apart & (p.min(axis=0) >= SMALLEST) & (z > 0) & (z < 1)
    if len(k) == 2:
        fits &= k[1] >= SMALLEST
    else:
        fits &= (k[0] - k[1] - k[2] >= SMALLEST) & (k[2] >= 0)
    return fits


def _yields(link: LinkModel, k: Floats, p: Floats) -> tuple[Floats, Floats, Floats]:
    """Return detections and errors per pulse of each intensity, and the mean detection (``LinkModel.yields``)."""
    light, dark = link.transmittance * k, 1 - link.dark_count_probability
    right = 1 - dark * np.exp(-light * (1 - link.misalignment))
    wrong = 1 - dark * np.exp(-light * link.misalignment)
    click, error = 1 - (1 - right) * (1 - wrong), wrong * (1 - right) + right * wrong / 2
    mean = np.sum(p * click, axis=0)
    share: Floats | float = link.afterpulse_probability
    if link.afterpulse_decay_s > 0:
        in_time = 1 / (1 + mean * link.clock_hz * link.afterpulse_decay_s)
        survives = math.exp(-link.dead_time_s / link.afterpulse_decay_s)
        share = link.afterpulse_probability * in_time / (1 - (1 - in_time) * survives)
    after = mean * share / (1 - share)
    live = 1 / (1 + (mean + after) * link.clock_hz * link.dead_time_s)
    return live * (click + after), live * (error + after / 2), live * (mean + after)


def _printed(goal: Goal, key: ManyCounts, test: ManyCounts, k: Floats, p: Floats) -> tuple[Floats, Floats]:
    """Return (earned, cost) of a published curve, at the expected counts."""
    theorem, source = BATCH_THEOREMS[goal.theorem], ManySources.of(k, p)
    ln = math.log(theorem.parts) - math.log(goal.eps_sec)
    s0, s1 = theorem.photons(key, source, ln)
    _, s1_test = theorem.photons(test, source, ln)
    phase = theorem.phase_error_upper(s1, s1_test, theorem.errors(test, source, ln), goal.eps_sec)
    disclosed = np.ceil(goal.margin.efficiency * _shannon(key)) + goal.margin.constant_bits
    proof = -lim2014.secret_key_length(0.0, 0.0, 0.5, 0, goal.eps_sec, goal.eps_cor, theorem.parts)
    return s0 * theorem.credits_vacuum + s1 * (1 - binary_entropies(phase)), disclosed + proof


def _preset(goal: Goal, key: ManyCounts, test: ManyCounts, k: Floats, p: Floats) -> tuple[Floats, Floats]:
    """Return (earned, cost) at the corner of the acceptance set (``planning.acceptance_for``)."""
    margin, theorem = goal.margin, BATCH_THEOREMS[goal.theorem]
    source = ManySources.of(k[:, :, None], p[:, :, None])
    ln = math.log(theorem.parts) - math.log(goal.eps_sec)
    key_moved, test_moved = _variants(key), _variants(test)
    _, s1 = theorem.photons(key_moved, source, ln)
    _, s1_test = theorem.photons(test_moved, source, ln)
    v1 = theorem.errors(test_moved, source, ln)
    # A variant moves one basis; beside it stands the other's centre.
    phase_by_key = theorem.phase_error_upper(s1, s1_test[:, :1], v1[:, :1], goal.eps_sec)
    phase_by_test = theorem.phase_error_upper(s1[:, :1], s1_test, v1, goal.eps_sec)
    single = s1[:, 0] - margin.sigmas * np.sqrt(_variance(s1))
    phase = phase_by_key[:, 0] + margin.sigmas * np.sqrt(_variance(phase_by_key) + _variance(phase_by_test))
    # lambda cap: the worst rates on as many bits as the tolerance allows
    total = key.detections.sum(axis=0)
    scale = total * (1 + margin.detections) / (1 - margin.detections) / np.maximum(1, total)
    shannon = scale[:, None] * _shannon(key_moved)
    disclosed = shannon[:, 0] + margin.sigmas * np.sqrt(_variance(shannon))
    charged = np.ceil(margin.efficiency * disclosed) + margin.constant_bits + VERIFICATION_BITS
    proof = -theorem_named(goal.theorem).length(0.0, 0.5, 0, goal.eps_sec, goal.eps_cor)
    single = np.maximum(0, np.floor(single))
    return single * (1 - binary_entropies(np.minimum(0.5, phase))), charged + proof


def _shannon(key: ManyCounts) -> Floats:
    n, c = key.detections.sum(axis=0), key.errors.sum(axis=0)
    found: Floats = n * binary_entropies(np.minimum(0.5, c / np.maximum(1, n)))
    return found


def _variants(counts: ManyCounts) -> ManyCounts:
    """Return the counts with one more axis, the last: as they are, then pairs of one Poisson variable down and up.

    The variables are right and wrong detections at each intensity; each is moved by its own standard deviation.
    """
    levels, many = counts.detections.shape
    wrong = counts.errors
    right = counts.detections - wrong
    r = np.repeat(right[:, :, None], 1 + 4 * levels, axis=2)
    w = np.repeat(wrong[:, :, None], 1 + 4 * levels, axis=2)
    by_right, by_wrong = np.floor(np.sqrt(right)) + 1, np.floor(np.sqrt(wrong)) + 1
    for i in range(levels):
        at = 1 + 4 * i
        r[i, :, at], r[i, :, at + 1] = np.maximum(0, right[i] - by_right[i]), right[i] + by_right[i]
        w[i, :, at + 2], w[i, :, at + 3] = np.maximum(0, wrong[i] - by_wrong[i]), wrong[i] + by_wrong[i]
    assert r.shape == (levels, many, 1 + 4 * levels)
    return ManyCounts(r + w, w)


def _variance(quantity: Floats) -> Floats:
    """Return the variance from the variants: of each pair the larger effect counts."""
    effects = np.abs(quantity[:, 1:] - quantity[:, :1])
    found: Floats = np.sum(np.maximum(effects[:, 0::2], effects[:, 1::2]) ** 2, axis=1)
    return found
