"""How many connections of a door one caller may hold. No I/O."""

from __future__ import annotations

from collections import Counter
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["CONNECTIONS_MAX", "OF_ONE_MAX", "Shares"]

# Our choices, for each door.
CONNECTIONS_MAX: Final = 512
OF_ONE_MAX: Final = 96  # of one caller: more than it may have waiting for one link's store (http.server)
OF_UNKNOWN_MAX: Final = 16  # of all who have a certificate of the site's CA and are not registered, together


class Closing(Protocol):
    """A connection."""

    def is_closing(self) -> bool:
        """Tell whether it is closed, or is being closed."""


Connection = TypeVar("Connection", bound=Closing)


class Shares(Generic[Connection]):
    """The connections of one door and whose they are: an SAE ID, or "" for all who are not registered."""

    def __init__(self) -> None:
        self._held: dict[Connection, str] = {}  # in order of arrival

    def __len__(self) -> int:
        return len(self._held)

    def enter(self, one: Connection, caller: str) -> Connection | None:
        """Take a new connection; return the one that has to be ended for it, perhaps the new one itself.

        A caller's share does not grow at its own cost: what it has already is left as it is. In a full door the
        newest of whoever holds most makes way, for one who holds fewer.
        """
        self.forget_closed()  # a new one has cost a handshake, which is far more than this
        counts = Counter(self._held.values())
        if counts[caller] >= (OF_ONE_MAX if caller else OF_UNKNOWN_MAX):
            return one
        gone: Connection | None = None
        if len(self._held) >= CONNECTIONS_MAX:
            most, count = counts.most_common(1)[0]
            if count <= counts[caller] + 1:
                return one
            gone = next(held for held in reversed(self._held) if self._held[held] == most)
            del self._held[gone]
        self._held[one] = caller
        return gone

    def forget_closed(self) -> None:
        """Forget connections that have ended."""
        self._held = {one: caller for one, caller in self._held.items() if not one.is_closing()}
