"""Connections that have not proved themselves: how many there may be, and which one makes way for the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from heliograph.transport.tcp import TcpTransport

__all__ = ["Strangers"]

_MAX: Final = 8  # our choice, for the door of a link


class Strangers:
    """Whoever holds connections open without proving itself keeps nobody out, least of all from another address.

    The first to go is one that has not even sent its hello, then one of the address that holds most, then the oldest.
    """

    def __init__(self, most: int = _MAX) -> None:
        """``most``: how many are borne at once."""
        self._most = most
        self._heard: dict[TcpTransport, bool] = {}

    def __iter__(self) -> Iterator[TcpTransport]:
        return iter(tuple(self._heard))

    def add(self, transport: TcpTransport) -> None:
        """Take one more; another one is cut if there are too many."""
        if len(self._heard) >= self._most:
            held = Counter(other.peer_host for other in self._heard)
            # ``min`` takes the first of equals: the oldest.
            gone = min(self._heard, key=lambda other: (self._heard[other], -held[other.peer_host]))
            del self._heard[gone]  # at once: the next one that comes ends another
            gone.abort()
        self._heard[transport] = False

    def heard(self, transport: TcpTransport) -> None:
        """Note that its hello is here, which is no proof yet."""
        if transport in self._heard:
            self._heard[transport] = True

    def remove(self, transport: TcpTransport) -> None:
        """Forget one that has proved itself, or is gone."""
        self._heard.pop(transport, None)
