"""The two directions of one tunnelled connection: the order of records, across generations.

Within a generation the counters are exact (``generation``). Where a direction goes over to a new generation, its first
record there is a marker that says under which key_ID the direction was before and how many records it sent there, so
records cut off at the end of a generation are missed too.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from heliograph.consumer.keys import KEY_ID_BYTES, key_id_text
from heliograph.encryptors.generation import Generation
from heliograph.encryptors.records import RecordHeader, RecordType, opener_of
from heliograph.errors import KeySupplyError, LocalProtocolError, RemoteProtocolError

__all__ = ["Generations", "ReceiveLane", "SendLane"]

_MARKER: Final = struct.Struct(">16sQ")
_NONE_BEFORE: Final = bytes(KEY_ID_BYTES)


class Generations(Protocol):
    """Where lanes find the generations they may use now."""

    @property
    def sending(self) -> Generation | None:
        """The generation to send under, None if there is none within its age."""

    def receiving(self, key_id: bytes) -> Generation:
        """Return the accepted generation with this key_ID. Raises RemoteProtocolError."""

    def now(self) -> float:
        """Return the clock's seconds."""


class SendLane:
    """What this site sends on one connection."""

    __slots__ = ("_connection", "_generations", "_key_id", "_sent", "closed")

    def __init__(self, generations: Generations, connection: int) -> None:
        self._generations = generations
        self._connection = connection
        self._key_id: bytes | None = None
        self._sent = 0
        self.closed = False

    def seal(self, kind: RecordType, payload: bytes = b"") -> bytes:
        """Return one record, after a marker if the generation changed. Raises KeySupplyError without a generation."""
        if self.closed:
            raise LocalProtocolError(f"connection {self._connection}: {kind.name} after our close")
        generation = self._generations.sending
        if generation is None:
            raise KeySupplyError("no generation is active: nothing is sent until a key comes")
        data = b"" if self._key_id in (None, generation.key_id) else self._marker(generation)
        self._key_id = generation.key_id
        data += generation.seal(kind, self._connection, payload, self._generations.now())
        self._sent += 1
        self.closed = kind is RecordType.CLOSE
        return data

    def switch(self) -> bytes:
        """Return a marker of the current generation, or nothing if this direction needs none."""
        generation = self._generations.sending
        if generation is None or self.closed or self._key_id == generation.key_id:
            return b""
        if self._key_id is None and opener_of(self._connection) is generation.role:
            return b""  # we open this connection and have not yet: the first record is OPEN
        return self._marker(generation)

    def _marker(self, generation: Generation) -> bytes:
        payload = _MARKER.pack(self._key_id or _NONE_BEFORE, self._sent)
        record = generation.seal(RecordType.MARKER, self._connection, payload, self._generations.now())
        self._key_id, self._sent = generation.key_id, 1
        return record


class ReceiveLane:
    """What the peer sends on one connection; demands each record exactly once and in order."""

    __slots__ = ("_accepted", "_connection", "_generations", "_key_id", "_received", "closed")

    def __init__(self, generations: Generations, connection: int) -> None:
        self._generations = generations
        self._connection = connection
        self._key_id: bytes | None = None
        self._received = 0
        self._accepted = False
        self.closed = False

    @property
    def key_id(self) -> bytes | None:
        """The key_ID this direction is at; None before the first record."""
        return self._key_id

    def open(self, header: RecordHeader, body: bytes) -> bytes:
        """Return the payload of the next record. Raises RemoteProtocolError; the connection must then be closed."""
        if header.connection != self._connection:
            raise RemoteProtocolError(f"a record of connection {header.connection} came on {self._connection}: spliced")
        if self.closed:
            raise RemoteProtocolError(f"connection {self._connection}: {header.kind.name} after the peer's close")
        generation = self._generations.receiving(header.key_id)
        payload = generation.open(header, body, self._generations.now())
        self._check_order(header, generation, payload)
        if header.key_id == self._key_id:
            self._received += 1
        else:
            self._key_id, self._received = header.key_id, 1
        self._accepted |= header.kind in (RecordType.OPEN, RecordType.ACCEPT)
        self.closed = header.kind is RecordType.CLOSE
        return payload

    def _check_order(self, header: RecordHeader, generation: Generation, payload: bytes) -> None:
        if header.kind is RecordType.PACKET:
            raise RemoteProtocolError(f"connection {self._connection}: a packet came on a connection")
        first = RecordType.OPEN if opener_of(self._connection) is generation.role.peer else RecordType.ACCEPT
        if header.kind is RecordType.MARKER:
            before = (self._key_id or _NONE_BEFORE, self._received)
            if header.key_id == self._key_id or len(payload) != _MARKER.size or _MARKER.unpack(payload) != before:
                raise RemoteProtocolError(
                    f"connection {self._connection}: the marker of {key_id_text(header.key_id)} does not follow the "
                    f"{self._received} records received before: records were cut off"
                )
        elif self._key_id not in (None, header.key_id):
            raise RemoteProtocolError(f"connection {self._connection}: {header.kind.name} before the marker")
        elif (header.kind is first) is self._accepted or (
            header.kind in (RecordType.OPEN, RecordType.ACCEPT) and header.kind is not first
        ):
            raise RemoteProtocolError(f"connection {self._connection}: {header.kind.name} out of place")
