"""Who waits at an outer port without having proved anything, and who has to make way for whom. No I/O.

Whoever reaches the port may hold connections open without a word. They are bounded, and they push out each other: never
one that has shown a preshared key, and none that comes from where somebody has proved one before.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

__all__ = ["GRACE_SECONDS", "WaitingRoom"]

Who = TypeVar("Who")

# Our choice: how long a newcomer has for its first word before it may be pushed out, as long as there is room for four
# times as many; addresses remembered.
GRACE_SECONDS: Final = 0.25
_CROWD: Final = 4
_ADDRESSES_MAX: Final = 64


class WaitingRoom(Generic[Who]):
    """``most``: how many may wait in peace. Times are a clock's seconds."""

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._silent: dict[Who, tuple[str, float]] = {}  # address, since; in order of arrival
        self._shown: dict[Who, str] = {}  # showed a preshared key, and have not proved it fresh yet
        self._proven: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._silent) + len(self._shown)

    def enter(self, who: Who, address: str, now: float) -> Who | None:
        """Let somebody in; return who has to go for it, perhaps the newcomer itself."""
        gone = self._victim(address, now)
        if gone is not None:
            self.leave(gone)
        elif len(self._silent) >= self._most * _CROWD:
            return who
        self._silent[who] = address, now
        return gone

    def _victim(self, address: str, now: float) -> Who | None:
        if len(self._silent) < self._most:
            return None
        strangers = [(one, since) for one, (where, since) in self._silent.items() if where not in self._proven]
        if not strangers and address not in self._proven:
            return None  # the others have a claim: the newcomer has to go if there is no room left
        waiting = strangers or [(one, since) for one, (_, since) in self._silent.items()]
        oldest, since = waiting[0]
        return oldest if now - since >= GRACE_SECONDS or len(self._silent) >= self._most * _CROWD else None

    def show(self, who: Who) -> Who | None:
        """Note that somebody showed a preshared key: strangers cannot push it out any more. Return who has to go."""
        if who not in self._silent:
            return None
        gone = next(iter(self._shown)) if len(self._shown) >= self._most else None
        if gone is not None:
            self.leave(gone)  # a hello can be repeated by whoever saw it: these are bounded, too
        self._shown[who] = self._silent.pop(who)[0]
        return gone

    def prove(self, who: Who) -> None:
        """Note that somebody proved a key, and leaves; its address has a claim from now on."""
        address = self._shown.get(who) or self._silent.get(who, ("", 0.0))[0]
        self.leave(who)
        if address:
            self._proven[address] = None
            self._proven.move_to_end(address)
            while len(self._proven) > _ADDRESSES_MAX:
                self._proven.popitem(last=False)

    def leave(self, who: Who) -> None:
        """Note that somebody left, or was sent away."""
        self._silent.pop(who, None)
        self._shown.pop(who, None)
