"""The budget of authentication key: where its bits are, how few may be left, and how long they last. Pure.

Pad sets are the unit that runs out: a block begins only with all seven of its pads. Bits are told for each direction,
since a pad's role fixes its direction and no pad serves the other one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "PADS_FLOOR",
    "PADS_LOW",
    "PADS_RESERVE",
    "PADS_TARGET",
    "DirectionBits",
    "Forecast",
    "Level",
    "PadBudget",
    "Sample",
    "forecast",
    "level_of",
    "to_tell",
]

# Our choices, in complete pad sets left. Eight is what a slot of the key book opens an epoch with.
PADS_TARGET = 16  # where the pool settles
PADS_LOW = 8  # below: throttle
PADS_RESERVE = 4  # at or below: alarm. Two blocks in flight, a crash of both, and as many again
PADS_FLOOR = 2  # at or below: floor. One more failure in flight and there is nothing to recover with
_SPAN_MIN_S = 1e-3  # samples closer together make no rate


class Level(IntEnum):
    """How scarce pads are; a larger number is scarcer. What each means is in ``site/pacing.py``."""

    NORMAL = 0
    THROTTLE = 1
    ALARM = 2
    FLOOR = 3
    EMPTY = 4


def level_of(pad_sets: int) -> Level:
    """Return the level of a pool with ``pad_sets`` complete sets for blocks that have not begun."""
    if pad_sets <= 0:
        return Level.EMPTY
    if pad_sets <= PADS_FLOOR:
        return Level.FLOOR
    if pad_sets <= PADS_RESERVE:
        return Level.ALARM
    return Level.THROTTLE if pad_sets < PADS_LOW else Level.NORMAL


def to_tell(told: Level, now: Level) -> Level:
    """Return the level that the operator should know of, given the one last told; say something where they differ.

    An alarm is told when it is reached and again when it gets worse, and it is over at ``NORMAL`` only: a pool that
    wavers about a threshold with each block under way is told once.
    """
    if now is Level.NORMAL:
        return now
    return now if now >= Level.ALARM and now > told else told


@dataclass(frozen=True, slots=True)
class DirectionBits:
    """One direction's bits over the life of the link.

    ``bits_in`` came from the bootstrap, ``refilled`` from QKD key, ``spent`` went on tags made or accepted. Of the bits
    ``left``, those ``reserved`` belong to blocks under way or in doubt: no new block begins on them.
    """

    bits_in: int
    refilled: int
    spent: int
    left: int
    reserved: int

    @property
    def lost(self) -> int:
        """Bits destroyed unused: of discarded blocks, of exhausted attempts, of earlier epochs."""
        return self.bits_in + self.refilled - self.spent - self.left

    @property
    def free(self) -> int:
        """Bits for blocks that have not begun."""
        return self.left - self.reserved

    @property
    def used(self) -> int:
        """Bits that no new block can begin on any more: spent, lost or reserved. Never falls."""
        return self.spent + self.lost + self.reserved


@dataclass(frozen=True, slots=True)
class PadBudget:
    """A link's pool: complete sets for blocks that have not begun, and the bits of each direction."""

    pad_sets: int
    to_receiver: DirectionBits
    to_transmitter: DirectionBits

    @property
    def level(self) -> Level:
        """How scarce pads are."""
        return level_of(self.pad_sets)


@dataclass(frozen=True, slots=True)
class Sample:
    """Two sums over the life of a link, as they stood at ``at_s`` (seconds of any clock that never goes back)."""

    at_s: float
    used_bits: int
    refilled_bits: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """Rates over the window, in bits per second, and seconds until no block can begin.

    ``seconds_left`` is None while the pool holds or grows; ``seconds_left_without_refill`` is None while nothing is
    used. Both are None before two samples are there: nothing is known then.
    """

    used_bps: float
    refilled_bps: float
    seconds_left: float | None
    seconds_left_without_refill: float | None


def forecast(samples: Sequence[Sample], free_bits: int, window_s: float) -> Forecast:
    """Carry the last ``window_s`` seconds of ``samples`` (oldest first) forward over ``free_bits``."""
    if free_bits <= 0:
        return Forecast(*_rates(samples, window_s), 0.0, 0.0)
    used_bps, refilled_bps = _rates(samples, window_s)
    return Forecast(used_bps, refilled_bps, _lasts(free_bits, used_bps - refilled_bps), _lasts(free_bits, used_bps))


def _rates(samples: Sequence[Sample], window_s: float) -> tuple[float, float]:
    recent = [sample for sample in samples if sample.at_s >= samples[-1].at_s - window_s]
    if not recent or recent[-1].at_s - recent[0].at_s < _SPAN_MIN_S:
        return 0.0, 0.0
    first, last = recent[0], recent[-1]
    seconds = last.at_s - first.at_s
    used, refilled = last.used_bits - first.used_bits, last.refilled_bits - first.refilled_bits
    return max(0, used) / seconds, max(0, refilled) / seconds


def _lasts(free_bits: int, net_bps: float) -> float | None:
    seconds = free_bits / net_bps if net_bps > 0 else math.inf
    return seconds if math.isfinite(seconds) else None
