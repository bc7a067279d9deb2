"""Keeps the recent history of a link's authentication key, and tells the operator once when it gets scarce."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog

from heliograph.authentication.budget import DirectionBits, Level, PadBudget, Sample, forecast, to_tell
from heliograph.ports import Clock
from heliograph.status import Budget, PadFlow
from heliograph.storage.link_records import LinkRecords

__all__ = ["BudgetWatch"]

# Our choices: a window of many blocks, and a look that costs next to nothing.
_WINDOW_S = 300.0
_LOOK_S = 1.0

log = structlog.get_logger("heliograph.link")


class BudgetWatch:
    """Reads the pool at most once a second, from whichever thread asks; what it holds is replaced, never changed."""

    def __init__(self, records: LinkRecords, clock: Clock, log: Any = log) -> None:  # noqa: ANN401  - structlog's
        self._records = records
        self._log = log
        self._clock = clock
        self._history: tuple[tuple[Sample, Sample], ...] = ()
        self._told = Level.NORMAL

    def look(self) -> None:
        """Take a sample if it is time for one, and log a crossing: once for each, not once for each block."""
        now = self._clock.now()
        if self._history and now - self._history[-1][0].at_s < _LOOK_S:
            return
        budget = self._records.budget()
        self._note(now, budget)
        if any(way.bits_in for way in (budget.to_receiver, budget.to_transmitter)):
            self._tell(budget)  # before the first epoch nothing has run out

    def _note(self, now: float, budget: PadBudget) -> None:
        kept = [samples for samples in self._history if samples[0].at_s >= now - _WINDOW_S]
        self._history = (*kept, (_sample(now, budget.to_receiver), _sample(now, budget.to_transmitter)))

    def _tell(self, budget: PadBudget) -> None:
        tell = to_tell(self._told, budget.level)
        if tell is self._told:
            return
        self._told = tell
        if tell is Level.NORMAL:
            self._log.warning("authentication key is back", level="normal", pad_sets=budget.pad_sets)
            return
        self._log.warning(
            "authentication key is scarce",
            level=tell.name.lower(),
            pad_sets=budget.pad_sets,
            remedy="find out why blocks fail (last_discard); with no pad left both sites need a re-bootstrap",
        )

    def status(self) -> Budget:
        """Return the public figures; the forecast is that of the direction that runs out first."""
        budget, history = self._records.budget(), self._history
        ways = budget.to_receiver, budget.to_transmitter
        found = [forecast([samples[i] for samples in history], way.free, _WINDOW_S) for i, way in enumerate(ways)]
        return Budget(
            level=budget.level.name.lower(),
            to_receiver=_flow(ways[0]),
            to_transmitter=_flow(ways[1]),
            used_bps=sum(way.used_bps for way in found),
            refilled_bps=sum(way.refilled_bps for way in found),
            seconds_left=_soonest(way.seconds_left for way in found),
            seconds_left_without_refill=_soonest(way.seconds_left_without_refill for way in found),
        )


def _sample(now: float, way: DirectionBits) -> Sample:
    return Sample(now, way.used, way.refilled)


def _soonest(seconds: Iterable[float | None]) -> float | None:
    return min((s for s in seconds if s is not None), default=None)


def _flow(way: DirectionBits) -> PadFlow:
    return PadFlow(way.bits_in, way.refilled, way.spent, way.lost, way.left, way.reserved)
