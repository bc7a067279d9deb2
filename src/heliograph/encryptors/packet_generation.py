"""One generation for packets in datagrams: each counter is accepted once, in any order within a window.

The network may lose, repeat and reorder datagrams, so the exact order of ``generation`` cannot be asked for. The window
is that of RFC 6479 and of WireGuard in spirit: the highest counter seen, and which of those below it came.
"""

from __future__ import annotations

from typing import Final

from heliograph.consumer.keys import Role, TunnelKeys
from heliograph.encryptors.generation import Generation, GenerationLimits
from heliograph.encryptors.records import RecordHeader, RecordType, connection_index
from heliograph.errors import RemoteProtocolError

__all__ = ["WINDOW", "PacketGeneration", "ReplayWindow"]

WINDOW: Final = 2048  # our choice, in packets: more than a network reorders at these rates


class ReplayWindow:
    """Which counters came. ``check`` changes nothing; ``mark`` follows once the record is authentic."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0  # bit i: counter _highest - i came

    def check(self, counter: int) -> None:
        """Return if this counter may still come. Raises RemoteProtocolError."""
        behind = self._highest - counter
        if behind >= WINDOW:
            raise RemoteProtocolError(f"packet {counter} is {behind} behind: too old to tell from a replay")
        if behind >= 0 and self._seen >> behind & 1:
            raise RemoteProtocolError(f"packet {counter} came before: replayed")

    def mark(self, counter: int) -> None:
        """Note a counter that ``check`` let pass."""
        ahead = counter - self._highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self._highest = counter
        else:
            self._seen |= 1 << -ahead


class PacketGeneration(Generation):
    """Direction keys, counters, limits and the window of one generation."""

    __slots__ = ("_index", "_peer_index", "_window")

    def __init__(self, keys: TunnelKeys, role: Role, limits: GenerationLimits, since: float) -> None:
        super().__init__(keys, role, limits, since)
        self._index: Final = connection_index(role, 0)
        self._peer_index: Final = connection_index(role.peer, 0)
        self._window = ReplayWindow()

    def seal_packet(self, packet: bytes, now: float) -> bytes:
        """Return the record of a packet. Raises KeySupplyError over a limit."""
        return self.seal(RecordType.PACKET, self._index, packet, now)

    def open(self, header: RecordHeader, body: bytes, now: float) -> bytes:
        """Return the packet of a record that did not come before. Raises RemoteProtocolError, unchanged."""
        self._check(header, now)
        if header.kind is not RecordType.PACKET or header.connection != self._peer_index:
            raise RemoteProtocolError(f"{self!r}: a datagram with {header.kind.name}, not with the peer's packet")
        self._window.check(header.counter)
        packet = self._opened(header, body)
        self._window.mark(header.counter)
        return packet
