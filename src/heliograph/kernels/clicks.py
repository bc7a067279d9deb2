"""Clicks of a simulated block from three 32-byte seeds: light, receiver's bases, and the lab's dice.

All frames go in lockstep. In each step a frame draws the next candidate a geometric gap ahead, with the click
probability of the brightest intensity; it becomes a click with the ratio for the intensity really sent there.
What happens in step s of frame f depends on the seeds, s and f only: the dice are AES-256(dice, 4 s + use || f).
So it does not matter which frames run together, and the compiled kernel, which runs 32 at a time, finds the same
clicks bit for bit. For that the arithmetic is integers and single IEEE 754 operations; the logarithm is our own, since
those of libraries differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.cascade import Kernel
from heliograph.kernels.expansion import SEED_BYTES, SeededPulses, expand_bases, keystream, light_thresholds, threshold
from heliograph.kernels.native import compiled
from heliograph.types import Marks, Slots

__all__ = ["LEVELS", "EveMap", "Optics", "minus_log", "run_clicks"]

LEVELS: Final = 2**63  # a probability p of a pattern or outcome is the threshold floor(p * LEVELS)

_NEVER: Final = 2**62  # an empty trap
_FURTHEST: Final = 2.0**60
_NOTE_BITS: Final = 8
_TABLE: Final = 128
_LANES: Final = 32
_LN2: Final = 0.6931471805599453
_MANTISSA: Final = np.uint64(2**52 - 1)
_EVENT, _TRAPS, _EVE = range(3)  # uses of the dice in one step


@dataclass(frozen=True, slots=True, eq=False)
class EveMap:
    """What she makes of a pulse, by row intensity * 4 + basis * 2 + bit: shape (rows, outcomes) each.

    ``thresholds``: cumulated, int64 below LEVELS, the last one is not looked at. ``marks``: bit 0 the basis and bit 1
    the bit of the light that goes on; bits 2 to 4 her record, which comes back in the notes.
    """

    thresholds: NDArray[np.int64]
    marks: Marks


@dataclass(frozen=True, slots=True, eq=False)
class Optics:
    """Fibre and detectors as the sampler needs them.

    ``dead``, ``frame``: slots. ``exponent``: -ln of the probability that nothing fires in a slot of the brightest
    intensity, positive. ``patterns``: int64 of shape (intensities, 3, 3), for each intensity and relation (bases agree
    and bit 0, bit 1, bases crossed) the thresholds of {only 0}, {only 0, only 1}, {any click} given a candidate.
    ``filled``: probability that a click fills its detector's trap; ``decay``: mean delay of a release in slots.
    """

    dead: int
    frame: int
    exponent: float
    patterns: NDArray[np.int64] = field(repr=False)
    filled: float
    decay: float
    eve: EveMap | None = field(default=None, repr=False)


def run_clicks(
    optics: Optics, pulses: SeededPulses, basis_seed: bytes, dice: bytes, *, kernel: Kernel | None = None
) -> tuple[Slots, Marks]:
    """Return slots, ascending, and notes (bits 0 and 1: detectors that fired; bits 2 to 4: Eve's record), shape (n,).

    Raises ValueError for seeds of another length, a frame below 1, or an exponent that is not positive.
    """
    if len(basis_seed) != SEED_BYTES or len(dice) != SEED_BYTES:
        raise ValueError(f"seeds of {len(basis_seed)} and {len(dice)} bytes: {SEED_BYTES} each are needed")
    if optics.frame < 1 or optics.dead < 0 or not optics.exponent > 0:
        raise ValueError(
            f"frame {optics.frame}, dead {optics.dead}, exponent {optics.exponent}: none may be that small"
        )
    if kernel == "numpy" or compiled is None or not compiled.aes_level():
        return _reference(optics, pulses, basis_seed, dice)
    eve, light = optics.eve, pulses.light
    none = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    slots, notes = compiled.clicks(
        pulses.seed,
        basis_seed,
        dice,
        (light.pulses, optics.dead, optics.frame),
        (_scale(optics), optics.filled * 2.0**53, _filled_log(optics), min(optics.decay, _FURTHEST)),
        (threshold(light.transmitter_z_probability), threshold(light.receiver_z_probability)),
        light_thresholds(light),
        np.ascontiguousarray(optics.patterns).reshape(-1),
        *(none if eve is None else (eve.thresholds.reshape(-1), eve.marks.reshape(-1))),
        *_tables(),
        _room(optics, light.pulses),
    )
    return np.frombuffer(slots, dtype=np.int64), np.frombuffer(notes, dtype=np.uint8)


def minus_log(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return -ln(x 2^-53) of odd whole numbers x below 2^53, at least 2^-54; wrong by less than max(1, it) 2^-48.

    Each step is one IEEE 754 operation, so every processor gives the same: ln 2 times the exponent, the logarithm of
    one of 128 points next to the mantissa from a table, and five terms of the series for the rest.
    """
    inverse, logarithm = _tables()
    pattern = uniform.view(np.uint64)
    halvings = (np.int64(1076) - (pattern >> np.uint64(52)).astype(np.int64)).astype(np.float64)
    at = (pattern >> np.uint64(45)).astype(np.int64) & (_TABLE - 1)
    mantissa = ((pattern & _MANTISSA) | np.uint64(0x3FF << 52)).view(np.float64)
    r = mantissa * inverse[at] - 1.0
    series = r * (1.0 + r * (-0.5 + r * (1.0 / 3.0 + r * (-0.25 + r * 0.2))))
    log: NDArray[np.float64] = np.maximum(halvings * _LN2 - (logarithm[at] + series), 2.0**-54)
    return log


@cache
def _tables() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 1/c for the middles c of 128 parts of [1, 2), rounded, and -ln of these rounded numbers.

    By decimal arithmetic, which rounds correctly everywhere.
    """
    inverse = [1.0 / (1 + (i + 0.5) / _TABLE) for i in range(_TABLE)]
    with localcontext() as context:
        context.prec = 40
        logarithm = [float(-Decimal(part).ln()) for part in inverse]
    return np.array(inverse), np.array(logarithm)


def _room(optics: Optics, pulses: int) -> int:
    """Return a number of clicks that a lane of the compiled kernel hardly exceeds: all light the brightest."""
    frames = -(-pulses // optics.frame)
    share = min(-(-frames // _LANES) * optics.frame, pulses)
    mean = share / (optics.dead + 1 / min(optics.exponent, 1.0)) / (1 - optics.filled)
    return int(min(mean + 10 * math.sqrt(mean) + 10, share))


def _scale(optics: Optics) -> float:
    return min(1 / optics.exponent, 1e300) if optics.exponent > 1e-300 else 1e300


def _filled_log(optics: Optics) -> float:
    """Return -ln of the probability of a fill, by our own logarithm; 0 where traps are never filled."""
    if not optics.filled:
        return 0.0
    return float(minus_log(np.array([max(float(int(optics.filled * 2**53) | 1), 1.0)]))[0])


def _uniform(draws: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (draws >> np.uint64(12) << np.uint64(1) | np.uint64(1)).astype(np.float64)


def _reference(optics: Optics, pulses: SeededPulses, basis_seed: bytes, dice: bytes) -> tuple[Slots, Marks]:
    """Every array has one entry for each frame that is still running."""
    light = pulses.light
    starts = np.arange(0, light.pulses, optics.frame, dtype=np.int64)
    frame, stop, free = np.arange(len(starts)), np.minimum(starts + optics.frame, light.pulses), starts + optics.dead
    traps = np.full((2, len(starts)), _NEVER, dtype=np.int64)
    found = [np.empty(0, dtype=np.int64)]
    step = 0
    while len(frame):
        # (1) The next candidate by light, or the release of a trap, whichever comes first.
        draws = keystream(dice, 4 * step + _EVENT, frame)
        gaps = minus_log(_uniform(draws[:, 0])) * _scale(optics)
        candidate = free + np.minimum(gaps, (stop - free).astype(np.float64)).astype(np.int64)
        slot = np.minimum(candidate, np.minimum(traps[0], traps[1]))
        running = slot < stop
        frame, stop, slot, candidate, traps = (
            frame[running],
            stop[running],
            slot[running],
            candidate[running],
            traps[:, running],
        )
        # (2) What fires there. A release before the candidate finds no light: that slot was no candidate.
        notes = _light(optics, pulses, basis_seed, slot, draws[running, 1], keystream(dice, 4 * step + _EVE, frame))
        fired = np.where(candidate == slot, notes & 3, 0) | (traps[0] == slot) | (traps[1] == slot) << 1
        clicked = fired != 0
        found.append(((slot << _NOTE_BITS) + (notes & ~3 | fired))[clicked])
        # (3) Hold-off and traps.
        free = slot + 1 + clicked * optics.dead
        traps[traps < free] = _NEVER
        if optics.filled:
            uniform = _uniform(keystream(dice, 4 * step + _TRAPS, frame).T)
            filled = (uniform < optics.filled * 2.0**53) & np.stack((fired & 1, fired >> 1)).astype(bool)
            # Given that it is below the probability, the same number tells the delay: nothing remembers how it came.
            beyond = np.maximum(minus_log(uniform[filled]) - _filled_log(optics), 0.0)
            delays = np.minimum(beyond * min(optics.decay, _FURTHEST), _FURTHEST).astype(np.int64)
            traps[filled] = np.broadcast_to(free, traps.shape)[filled] + delays
        step += 1
    whole = np.sort(np.concatenate(found))
    return whole >> _NOTE_BITS, (whole & 0xFF).astype(np.uint8)


def _light(
    optics: Optics,
    pulses: SeededPulses,
    basis_seed: bytes,
    slots: Slots,
    level_draws: NDArray[np.uint64],
    eve_draws: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Return what light and dark counts fire at candidate slots, 0 for a rejected one, and Eve's record."""
    sent = pulses.at(slots, kernel="numpy")
    intensity, basis, bit = (part.astype(np.int64) for part in (sent.intensities, sent.bases, sent.bits))
    notes = np.zeros(len(slots), dtype=np.int64)
    if optics.eve is not None:
        row = 4 * intensity + 2 * basis + bit
        levels = (eve_draws[:, 0] >> np.uint64(1)).astype(np.int64)
        outcome = (levels[:, None] >= optics.eve.thresholds[row, :-1]).sum(axis=1)
        marks = optics.eve.marks[row, outcome].astype(np.int64)
        basis, bit, notes = marks & 1, marks >> 1 & 1, marks & 0x1C
    own = expand_bases(basis_seed, slots, pulses.light.receiver_z_probability, kernel="numpy")
    limits = optics.patterns[intensity, np.where(own == basis, bit, 2)]
    level = (level_draws >> np.uint64(1)).astype(np.int64)
    fired = 1 + (level >= limits[:, 0]) + (level >= limits[:, 1])
    return notes | np.where(level < limits[:, 2], fired, 0)
