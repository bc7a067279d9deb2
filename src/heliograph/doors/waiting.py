"""Who waits at a door for a handshake, whose turn it is, and who has to make way. No I/O.

Nobody who waits has been read from: an accepted socket is all that it costs. Sources take turns, those that proved a
certificate lately first. Within one source the oldest is first, until it has waited so long that it may well have given
up: then there is a flood from that source, and the newest is first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from heliograph.doors.sources import Sources
from heliograph.kme.quotas import Bucket

__all__ = ["HANDSHAKE_SECONDS", "Waiting"]

# Our choices, for each door.
HANDSHAKE_SECONDS: Final = 5.0  # for the first message to be whole, then for a turn, then for the handshake
STALL_SECONDS: Final = 2.0  # for a handshake whose place another one could have
GIVEN_UP_SECONDS: Final = 1.0
WAITING_MAX: Final = 512
WAITING_OF_ONE: Final = 256  # of one source
UNDER_WAY_MAX: Final = 64  # of sources that proved a certificate lately, and as many of all others
UNDER_WAY_OF_ONE: Final = 32

Who = TypeVar("Who", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _UnderWay:
    source: str
    since: float
    stranger: bool
    token: Bucket


class Waiting(Generic[Who]):
    """Times are a monotonic clock's seconds."""

    def __init__(self, sources: Sources) -> None:
        self._sources: Final = sources
        self._silent: dict[str, dict[Who, float]] = {}  # no whole first message yet; in order of arrival
        self._ready: OrderedDict[str, dict[Who, float]] = OrderedDict()  # in order of the sources' turns
        self._source: dict[Who, str] = {}
        self._under_way: dict[Who, _UnderWay] = {}

    def __len__(self) -> int:
        return len(self._source)

    @property
    def somebody_is_ready(self) -> bool:
        """Whether somebody waits for nothing but a turn."""
        return bool(self._ready)

    def enter(self, who: Who, source: str, now: float) -> Who | None:
        """Let somebody in; return who has to go for it, perhaps the newcomer itself."""
        gone: Who | None = None
        if self._held(source) >= WAITING_OF_ONE:
            gone = next(iter(self._silent.get(source, ())), None)
            if gone is None:
                return who
        elif len(self._source) >= WAITING_MAX:
            gone = self._victim(source, now)
            if gone is None:
                return who
        if gone is not None:
            self.leave(gone)
        self._source[who] = source
        self._silent.setdefault(source, {})[who] = now
        return gone

    def _held(self, source: str) -> int:
        return len(self._silent.get(source, ())) + len(self._ready.get(source, ()))

    def _victim(self, newcomer: str, now: float) -> Who | None:
        """Return who makes way in a full room: of the stranger with most, first who is silent, first the oldest.

        If all are of sources that proved a certificate, it is of the one with most, for a source with fewer; for a
        stranger only who is silent, where one source fills a quarter of the room.
        """
        sources = {*self._silent, *self._ready}
        strangers = [name for name in sources if not self._sources.has_proved(name, now)]
        fullest = max(strangers or sources, key=self._held)
        silent = next(iter(self._silent.get(fullest, ())), None)
        if not strangers and not self._sources.has_proved(newcomer, now):
            return silent if self._held(fullest) >= WAITING_MAX // 4 else None
        if not strangers and self._held(fullest) <= self._held(newcomer) + 1:
            return None
        return silent if silent is not None else next(iter(self._ready[fullest]))

    def hello(self, who: Who, now: float) -> None:
        """Note that somebody's first message is whole: the handshake can begin when it is its turn."""
        source = self._source[who]
        _take_out(self._silent, source, who)
        self._ready.setdefault(source, {})[who] = now

    def leave(self, who: Who) -> None:
        """Note that somebody left, or was sent away."""
        source = self._source.pop(who, None)
        if source is not None:
            _take_out(self._silent, source, who)
            _take_out(self._ready, source, who)

    def next(self, now: float) -> Who | None:
        """Return whose handshake begins now, None if nobody's may. It does not wait any more, it is under way."""
        of_one, kinds = self._counts()
        turns = [
            (self._sources.rank(source, now), source)
            for source in self._ready
            if of_one[source] < UNDER_WAY_OF_ONE and self._sources.may_begin(source, now)
        ]
        turns = [turn for turn in turns if kinds[turn[0] > 0] < UNDER_WAY_MAX]
        if not turns:
            return None
        # ``min`` takes the first of equals: the source whose last turn is longest ago.
        rank, source = min(turns, key=lambda turn: turn[0])
        room = self._ready[source]
        who, since = next(iter(room.items()))
        if now - since >= GIVEN_UP_SECONDS:
            who = next(reversed(room))
        self._ready.move_to_end(source)
        self.leave(who)
        self._under_way[who] = _UnderWay(source, now, rank > 0, self._sources.begin(source, now))
        return who

    def _counts(self) -> tuple[Counter[str], Counter[bool]]:
        """Count the handshakes under way: of each source, and of strangers and others."""
        there = self._under_way.values()
        return Counter(one.source for one in there), Counter(one.stranger for one in there)

    def overdue(self, now: float) -> list[Who]:
        """Return who has waited, or is under way, for too long; they are still to ``leave`` or to be ``ended``."""
        of_one, kinds = self._counts()
        late: list[Who] = []
        for who, one in self._under_way.items():  # the oldest first: as soon as a place is free, the others may go on
            full = of_one[one.source] >= UNDER_WAY_OF_ONE or kinds[one.stranger] >= UNDER_WAY_MAX
            if now - one.since >= (STALL_SECONDS if full else HANDSHAKE_SECONDS):
                late.append(who)
                of_one[one.source] -= 1
                kinds[one.stranger] -= 1
        for room in (*self._silent.values(), *self._ready.values()):
            late += [who for who, since in room.items() if now - since >= HANDSHAKE_SECONDS]
        return late

    def everybody(self) -> list[Who]:
        """Return all who wait."""
        return list(self._source)

    def all_under_way(self) -> list[Who]:
        """Return all whose handshake is under way."""
        return list(self._under_way)

    def silent(self) -> list[Who]:
        """Return all of whom no whole message has come."""
        return [who for room in self._silent.values() for who in room]

    def ended(self, who: Who, now: float, proved: str | None) -> None:
        """Note the end of a handshake; ``proved``: the name of the caller, None if nobody's was proved."""
        one = self._under_way.pop(who, None)
        if one is None:
            return
        if proved is None:
            self._sources.failed(one.source, now)
        else:
            self._sources.proved(one.source, proved, one.token, now)


def _take_out(rooms: dict[str, dict[Who, float]], source: str, who: Who) -> None:
    room = rooms.get(source)
    if room is not None:
        room.pop(who, None)
        if not room:
            del rooms[source]
