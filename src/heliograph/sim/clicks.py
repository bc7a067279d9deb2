"""The fast sampler: clicks of a block, without visiting the pulses in between.

The receiver model, exactly:

1. A pulse of mean photon number mu is coherent light of random phase. In matched bases the share 1-e_mis goes to the
   detector of its bit, e_mis to the other; in crossed bases each gets half. A live detector fires with probability
   1-(1-p_d)exp(-eta mu share), independently of the other (theory.md 1.1).
2. Common hold-off: after a click in any detector both are gated off for the next ``dead_slots`` slots, so no click
   ever happens while a detector is dead (security.md 9, against Weier et al. 2011).
3. Each detector has one trap. A click of that detector fills it with ``afterpulse_probability`` (a trap filled anew
   forgets its old release). It releases in the slot after the hold-off plus floor(an exponential time, in slots, of
   mean ``afterpulse_decay_s``): then the detector fires, alone or together with light. A release inside a later
   hold-off is lost.
4. Frames: the block is cut in frames of ``frame_slots`` slots. At a frame's start the traps are empty and both
   detectors are gated off for ``dead_slots`` slots. This is a feature of the simulated receiver, it makes frames
   independent; without dead time it blanks nothing, and at most 1 slot in 256 otherwise.

The method, and why it is quick, is in ``kernels.clicks``; here the closed forms become its thresholds. A ratio does not
depend on the bases, since (1-Pc)(1-Pw) = (1-p_d)^2 exp(-eta mu).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.cascade import Kernel
from heliograph.kernels.clicks import LEVELS, EveMap, Optics, run_clicks
from heliograph.kernels.expansion import SEED_BYTES, SeededPulses
from heliograph.sim.channel import Channel
from heliograph.sim.detectors import dead_slots
from heliograph.sim.eve import Attack, EveRecord
from heliograph.sim.randomness import Generator
from heliograph.types import LightParameters, Marks, Slots

__all__ = ["Clicks", "clicks_upper", "frame_slots", "sample_clicks"]

_EVENTS_PER_FRAME: Final = 256  # our choice: bounds both the steps of the lockstep and the share a frame guard blanks
_LARGEST_FRAME: Final = 2**48


@dataclass(frozen=True, slots=True)
class Clicks:
    """The physical clicks of a block: ``slots`` ascending; ``patterns`` has bit 0 for detector 0, bit 1 for 1.

    ``eve``: her record at these slots, None without an attack; it stays in the lab.
    """

    slots: Slots
    patterns: Marks = field(repr=False)
    eve: EveRecord | None = field(default=None, repr=False)


def frame_slots(channel: Channel, light: LightParameters) -> int:
    """Return the slots in a frame: the least power of two with room for 256 dead times and mean gaps."""
    dead = dead_slots(channel.detectors.dead_time_s, light.clock_hz)
    gap = 1 / max(channel.click_probability(light.intensities[0]), 1 / _LARGEST_FRAME)
    return min(1 << math.ceil(math.log2(_EVENTS_PER_FRAME * (dead + gap))), _LARGEST_FRAME)


def clicks_upper(channel: Channel, light: LightParameters) -> float:
    """Return a number of clicks that a block exceeds with negligible probability, to bound its memory.

    As if every pulse had the brightest intensity: mean with all afterpulses, plus ten standard deviations.
    """
    dead = dead_slots(channel.detectors.dead_time_s, light.clock_hz)
    gap = 1 / max(channel.click_probability(light.intensities[0]), 1 / _LARGEST_FRAME)
    mean = light.pulses / (dead + gap) / (1 - channel.detectors.afterpulse_probability)
    return min(mean + 10 * math.sqrt(mean) + 10, light.pulses)


def sample_clicks(
    channel: Channel,
    pulses: SeededPulses,
    basis_seed: bytes,
    generator: Generator,
    attack: Attack | None = None,
    *,
    kernel: Kernel | None = None,
) -> Clicks:
    """Return the clicks of one block.

    ``basis_seed`` (32 bytes) gives the receiver's bases by ``kernels.expansion``; the generator gives the 32 bytes from
    which all dice are thrown. The same arguments and a generator in the same state give the same clicks.
    """
    dice, light, detectors = generator.bytes(SEED_BYTES), pulses.light, channel.detectors
    exponent = channel.exponent(light.intensities[0])
    if exponent <= 0:  # no light and no dark counts: nothing ever clicks, and no trap is ever filled
        nothing = np.empty(0, dtype=np.uint8)
        eve = None if attack is None else EveRecord(nothing, nothing, nothing)
        return Clicks(slots=np.empty(0, dtype=np.int64), patterns=nothing, eve=eve)
    optics = Optics(
        dead=min(dead_slots(detectors.dead_time_s, light.clock_hz), _LARGEST_FRAME),
        frame=frame_slots(channel, light),
        exponent=exponent,
        patterns=_pattern_table(channel, light.intensities),
        filled=detectors.afterpulse_probability,
        decay=detectors.afterpulse_decay_s * light.clock_hz,
        eve=None if attack is None else _eve_map(attack, len(light.intensities)),
    )
    slots, notes = run_clicks(optics, pulses, basis_seed, dice, kernel=kernel)
    eve = None if attack is None else EveRecord(*(notes >> np.uint8(bit) & np.uint8(1) for bit in (2, 3, 4)))
    return Clicks(slots=slots, patterns=notes & np.uint8(3), eve=eve)


def _pattern_table(channel: Channel, intensities: tuple[float, ...]) -> NDArray[np.int64]:
    """Return the thresholds of {only 0}, {only 0, only 1}, {any click} given a candidate; see ``kernels.clicks``."""
    right, brightest = 1 - channel.fibre.misalignment, channel.click_probability(intensities[0])
    table = np.empty((len(intensities), 3, 3), dtype=np.int64)
    for (row, mean_photons), (relation, share) in itertools.product(
        enumerate(intensities), enumerate((right, 1 - right, 0.5))
    ):
        zero, one = channel.fire_probability(mean_photons, share), channel.fire_probability(mean_photons, 1 - share)
        clicks = channel.click_probability(mean_photons)
        for column, p in enumerate((zero * (1 - one), clicks - zero * one, clicks)):
            table[row, relation, column] = _level(p / brightest)
    return table


def _eve_map(attack: Attack, intensities: int) -> EveMap:
    """Return the attack as thresholds. Raises ValueError unless its probabilities sum to 1."""
    rows = [attack.outcomes(k, basis, bit) for k, basis, bit in itertools.product(range(intensities), (0, 1), (0, 1))]
    thresholds = np.full((len(rows), max(map(len, rows))), LEVELS - 1, dtype=np.int64)
    marks = np.zeros(thresholds.shape, dtype=np.uint8)
    for row, outcomes in enumerate(rows):
        total = math.fsum(outcome.probability for outcome in outcomes)
        if abs(total - 1) > 1e-9 or any(outcome.probability < 0 for outcome in outcomes):
            raise ValueError(f"{attack!r}: the probabilities of its outcomes sum to {total}, or one is negative")
        cumulated = itertools.accumulate(outcome.probability for outcome in outcomes)
        for column, (outcome, p) in enumerate(zip(outcomes, cumulated, strict=True)):
            thresholds[row, column] = _level(p)
            record = (1 | outcome.basis << 1 | outcome.bit << 2) if outcome.measured else 0
            marks[row, column:] = outcome.basis | outcome.bit << 1 | record << 2
    return EveMap(thresholds, marks)


def _level(probability: float) -> int:
    """Return the threshold of a probability; 2^63 does not fit, so certainty misses by 2^-63."""
    return min(math.floor(probability * LEVELS), LEVELS - 1)
