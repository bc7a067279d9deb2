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

Method: all frames go in lockstep. The next candidate lies a geometric gap ahead, with the click probability of the
brightest intensity; the candidate becomes a click with the ratio for the intensity really sent there. The ratio does
not depend on the bases, since (1-Pc)(1-Pw) = (1-p_d)^2 exp(-eta mu).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.expansion import expand_bases
from heliograph.sim.channel import Channel
from heliograph.sim.detectors import dead_slots
from heliograph.sim.eve import Attack, EveRecord
from heliograph.sim.randomness import Generator
from heliograph.types import LightParameters, Marks, PulseRecord, Slots

__all__ = ["Clicks", "clicks_upper", "frame_slots", "sample_clicks"]

_EVENTS_PER_FRAME: Final = 256  # our choice: bounds both the steps of the lockstep and the share a frame guard blanks
_NEVER: Final = 2**62  # an empty trap
_NOTE_BITS: Final = 8  # below the slot (48 bits) in a sort key: pattern (2 bits), Eve's record (3 bits)
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
    pulses: PulseRecord,
    basis_seed: bytes,
    generator: Generator,
    attack: Attack | None = None,
) -> Clicks:
    """Return the clicks of one block.

    ``pulses`` is looked at in candidate slots only; ``basis_seed`` (32 bytes) gives the receiver's bases by
    ``kernels.expansion``. The same arguments and a generator in the same state give the same clicks.
    """
    light = pulses.light
    events = _Events(channel, pulses, basis_seed, generator, attack)
    step = frame_slots(channel, light)
    starts = np.arange(0, light.pulses, step, dtype=np.int64)
    found = events.run(starts + events.dead, np.minimum(starts + step, light.pulses))
    eve = None if attack is None else EveRecord(*((found >> bit & 1).astype(np.uint8) for bit in (2, 3, 4)))
    return Clicks(slots=found >> _NOTE_BITS, patterns=(found & 3).astype(np.uint8), eve=eve)


class _Events:
    """The lockstep over frames: every array has one entry for each frame that is still running."""

    def __init__(
        self, channel: Channel, pulses: PulseRecord, basis_seed: bytes, generator: Generator, attack: Attack | None
    ) -> None:
        light, detectors = pulses.light, channel.detectors
        self.dead = dead_slots(detectors.dead_time_s, light.clock_hz)
        self._pulses = pulses
        self._basis_seed = basis_seed
        self._attack = attack
        self._generator = generator
        self._afterpulse_probability = detectors.afterpulse_probability
        self._decay_slots = detectors.afterpulse_decay_s * light.clock_hz
        self._brightest = channel.click_probability(light.intensities[0])
        self._exponent = channel.exponent(light.intensities[0])
        self._only_0, self._not_both, self._any = _pattern_table(channel, light.intensities)

    def run(self, free: Slots, stop: Slots) -> NDArray[np.int64]:
        """Return the clicks of all frames, sorted: slot * 2^8 + notes. ``free``: first live slot of each frame."""
        traps = np.full((2, len(free)), _NEVER, dtype=np.int64)
        found = [np.empty(0, dtype=np.int64)]
        while True:
            # (1) The next candidate by light, or the release of a trap, whichever comes first.
            candidate = free + self._gaps(stop - free)
            slot = np.minimum(candidate, np.minimum(traps[0], traps[1]))
            running = slot < stop
            if not running.all():
                slot, candidate, stop, traps = slot[running], candidate[running], stop[running], traps[:, running]
            if not len(slot):
                break
            # (2) What fires there. A release before the candidate finds no light: that slot was no candidate.
            notes = self._light(slot)
            fired = np.where(candidate == slot, notes & 3, 0) | (traps[0] == slot) | (traps[1] == slot) << 1
            clicked = fired != 0
            found.append(((slot << _NOTE_BITS) + (notes & ~3 | fired))[clicked])
            # (3) Hold-off and traps.
            free = slot + 1 + clicked * self.dead
            traps[traps < free] = _NEVER
            if self._afterpulse_probability:
                self._fill(traps, fired, free)
        return np.sort(np.concatenate(found))

    def _gaps(self, room: Slots) -> Slots:
        """Slots without a candidate before the next one: geometric, and at least ``room`` where none comes in it."""
        if not self._exponent:
            return room
        gaps = self._generator.standard_exponential(len(room)) / self._exponent
        return np.minimum(gaps, room).astype(np.int64)

    def _light(self, slots: Slots) -> NDArray[np.int64]:
        """Draw the detectors that light and dark counts fire at candidate slots (bits 0, 1), 0 for a rejected one.

        Bits 2 to 4 are Eve's record.
        """
        light = self._pulses.at(slots)
        notes = np.zeros(len(slots), dtype=np.int64)
        if self._attack is not None:
            intercepted = self._attack.intercept(light, self._generator)
            light, record = intercepted.light, intercepted.record
            notes |= record.measured << 2 | record.bases << 3 | record.bits << 4
        bases = expand_bases(self._basis_seed, slots, self._pulses.light.receiver_z_probability)
        row = light.intensities * np.int64(3) + np.where(bases == light.bases, light.bits, np.uint8(2))
        level = self._generator.random(len(slots)) * self._brightest
        fired = 1 + (level >= self._only_0[row]) + (level >= self._not_both[row])
        return notes | np.where(level < self._any[row], fired, 0)

    def _fill(self, traps: NDArray[np.int64], fired: NDArray[np.int64], free: Slots) -> None:
        """Fill the traps of the detectors that fired, each by its own dice."""
        filled = self._generator.random(traps.shape) < self._afterpulse_probability
        filled &= np.stack((fired & 1, fired >> 1)).astype(bool)
        detector, frame = np.nonzero(filled)
        delays = self._generator.standard_exponential(len(frame)) * self._decay_slots
        traps[detector, frame] = free[frame] + delays.astype(np.int64)


def _pattern_table(
    channel: Channel, intensities: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the cumulated probabilities of {only 0}, {only 0, only 1}, {any click}; row 3 * intensity + relation.

    Relation 0 and 1: bases agree, and that is the bit sent; 2: bases crossed.
    """
    right = 1 - channel.fibre.misalignment
    rows = [(k, share) for k in intensities for share in (right, 1 - right, 0.5)]
    zero = np.array([channel.fire_probability(k, share) for k, share in rows])
    one = np.array([channel.fire_probability(k, 1 - share) for k, share in rows])
    clicks = np.array([channel.click_probability(k) for k, _ in rows])
    return zero * (1 - one), clicks - zero * one, clicks
