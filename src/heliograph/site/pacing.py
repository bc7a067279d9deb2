"""When the next block may begin and how many later blocks it refills, so that failures cannot drain the pool.

Every block spends a pad set, whether it makes a key or not; who can make blocks fail (noise on the fibre, a cut
connection, a crash) could empty the pool. So the link slows down while blocks fail, and more so when few pads are left.
"""

from __future__ import annotations

from heliograph.authentication.budget import PADS_RESERVE, PADS_TARGET, Level, level_of
from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.ports import Clock
from heliograph.protocol.commitment import REFILLS_MAX

__all__ = ["Pace"]

# Our choices.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0
_PATIENT_FAILURES = 3  # so many failures in a row may be a crash and a restart: no reason to save pads yet


class Pace:
    """Counts failures since the last block that made a key. Availability only: the clock decides no more than that."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._failed_at = 0.0

    def failed(self) -> None:
        """Note a block that ended without a key."""
        self._failures += 1
        self._failed_at = self._clock.now()

    def succeeded(self) -> None:
        """Note a block that made a key."""
        self._failures = 0

    def pause_s(self, free: int) -> float:
        """Return how long to wait after the last failure while ``free`` pad sets are left."""
        if not self._failures:
            return 0.0
        pause = min(_FIRST_PAUSE_S * (1 << min(self._failures - 1, 16)), _LONGEST_PAUSE_S)
        if self._failures > _PATIENT_FAILURES and level_of(free) >= Level.ALARM:
            pause = max(pause, _LONGEST_PAUSE_S * (1 << max(0, PADS_RESERVE - free)))
        return pause

    def may_begin(self, free: int, busy: int, in_flight: int) -> bool:
        """Tell whether a block may begin beside the ``busy`` ones that are under way."""
        # A crash costs every block in flight: half as many while the pool is low, one while it is an alarm or blocks
        # fail. ``free`` does not count the busy ones' pads, which are spent whatever becomes of them.
        at_once = in_flight if level_of(free) is Level.NORMAL else max(1, in_flight // 2)
        if level_of(free) >= Level.ALARM or self._failures:
            at_once = 1
        return busy < at_once and self._clock.now() - self._failed_at >= self.pause_s(free)

    @staticmethod
    def refills(free: int, length: int, keys_bits: int) -> int:
        """Return how many later blocks a block of ``length`` secret bits serves; ``keys_bits``: one key for each site.

        While the pool is low authentication goes first, down to one key for each site (security.md 2), and at the floor
        down to no key at all; later at most a third of a block refills the pool. A registered block holds at least one
        pad set, and the count travels in the tagged decision, so that both sites cut alike (docs/adr/0023).
        """
        level = level_of(free)
        if level is Level.NORMAL:
            wanted, affordable = 2 if free < PADS_TARGET else 1, length // (3 * PAD_SET_BITS)
        else:
            keys = 0 if level >= Level.FLOOR else keys_bits
            wanted, affordable = REFILLS_MAX, (length - keys) // PAD_SET_BITS
        return max(1, min(wanted, affordable))
