"""The target's side: shares arrive one by one, until enough of them vouch for each other.

A set of ``threshold`` shares of which each vouches for each other (``parcels``) is taken. If fewer paths than that lie,
one of the set is honest, and its keys, which no other path carried, vouch for the rest. Shares that do not lie on the
polynomial of the set are named. A path that lies about tags alone changes nothing, and could be the one or the other
of two that do not vouch: it is not named. Where no such set is left, nothing is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from heliograph.errors import AuthenticationFailed, RemoteProtocolError
from heliograph.network.endtoend import EndToEnd
from heliograph.network.letters import Letter, Receipt, Status
from heliograph.network.parcels import Parcel, agree, read_parcel
from heliograph.network.sharing import fits, join
from heliograph.network.topology import describe

__all__ = ["Collector", "Complete"]

# Our choices.
WAITING_MAX: Final = 32  # transfers begun by shares of one neighbour: another's are never pushed out by it
SETTLED_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Complete:
    """A transfer whose secret is known now; it is acknowledged when its keys are durable, and not before."""

    letter: Letter
    wire: bytes
    secret: bytes = field(repr=False)
    suspects: tuple[int, ...]


@dataclass
class _Waiting:
    neighbour: str  # who brought the first share of it
    neighbours: set[str] = field(default_factory=set)  # who brought any
    parcels: dict[int, Parcel] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)


@dataclass
class Collector:
    """Shares in memory only: a crash loses them, and the origin then has no acknowledgement."""

    _waiting: OrderedDict[bytes, _Waiting] = field(default_factory=OrderedDict)
    _settled: OrderedDict[bytes, Receipt] = field(default_factory=OrderedDict)

    def take(
        self, neighbour: str, letter: Letter, wire: bytes, number: int, data: bytes, end: EndToEnd | None
    ) -> Receipt | Complete:
        """Take one share. ``wire``: the letter's bytes, under which shares are brought together.

        The same share again changes nothing. Raises RemoteProtocolError for what is no parcel of this letter.
        """
        if wire in self._settled:
            return self._settled[wire]
        parcel = read_parcel(letter, number, data, proved=end is not None)
        waiting = self._waiting.get(wire) or self._begin(wire, neighbour)
        waiting.neighbours.add(neighbour)
        if number in waiting.parcels and waiting.parcels[number].body != parcel.body:
            raise RemoteProtocolError("another share under a number that has come already")
        try:
            if end is not None:
                end.check(wire, number, parcel.body, parcel.proof)
        except AuthenticationFailed:
            waiting.refused.add(number)
            return self._undecided(letter, wire, waiting)
        waiting.parcels[number] = parcel
        found = self._consistent(letter, wire, waiting)
        if found is None:
            return self._undecided(letter, wire, waiting)
        shares = {n: waiting.parcels[n].share for n in found}
        total = len(letter.paths)
        suspects = waiting.refused | {n for n, one in waiting.parcels.items() if not fits(shares, n, one.share, total)}
        secret = join(shares, letter.threshold, total)
        del self._waiting[wire]
        return Complete(letter, wire, secret, tuple(sorted(suspects)))

    def settle(self, wire: bytes, receipt: Receipt) -> None:
        """Remember what was answered, so that a later share of the same transfer hears it again."""
        self._settled[wire] = receipt
        while len(self._settled) > SETTLED_MAX:
            self._settled.popitem(last=False)

    def _begin(self, wire: bytes, neighbour: str) -> _Waiting:
        of_it = [key for key, waiting in self._waiting.items() if waiting.neighbour == neighbour]
        if len(of_it) >= WAITING_MAX:
            # Only what came from this neighbour alone makes way: it must not push out what others brought.
            alone = next((key for key in of_it if self._waiting[key].neighbours <= {neighbour}), None)
            if alone is None:
                raise RemoteProtocolError("too many transfers of this neighbour wait for their other shares")
            del self._waiting[alone]
        self._waiting[wire] = waiting = _Waiting(neighbour)
        return waiting

    @staticmethod
    def _consistent(letter: Letter, wire: bytes, waiting: _Waiting) -> tuple[int, ...] | None:
        for numbers in combinations(sorted(waiting.parcels), letter.threshold):
            chosen = [waiting.parcels[n] for n in numbers]
            if all(agree(wire, one, other) for one, other in combinations(chosen, 2)):
                return numbers
        return None

    def _undecided(self, letter: Letter, wire: bytes, waiting: _Waiting) -> Receipt:
        missing = len(letter.paths) - len(waiting.parcels.keys() | waiting.refused)
        came, needed = len(waiting.parcels), letter.threshold
        if missing:
            return Receipt(Status.HELD, suspects=tuple(sorted(waiting.refused)), reason=f"{came} of {needed}")
        del self._waiting[wire]
        if waiting.refused:
            named = ", ".join(describe(letter.paths[number - 1]) for number in sorted(waiting.refused))
            why = f"a parcel that the other end did not send: a relay on its path lies: {named}"
        else:
            why = "the shares do not belong together: one of these paths lies"
        return Receipt(Status.REFUSED, suspects=tuple(sorted(waiting.refused or waiting.parcels)), reason=why)
