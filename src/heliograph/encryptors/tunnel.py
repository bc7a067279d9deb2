"""One outer TCP connection between two encryptors, and the carrying of one inner connection through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

from heliograph.encryptors.generation import Generation
from heliograph.encryptors.keyring import Ring
from heliograph.encryptors.lanes import ReceiveLane, SendLane
from heliograph.encryptors.records import (
    HEADER_BYTES,
    RecordHeader,
    RecordType,
    parse_header,
)
from heliograph.errors import TransportClosed

__all__ = ["CATCH_UP_BYTES", "STREAM_LIMIT_BYTES", "Carrier", "Tunnel", "abort", "carry", "read_record", "reset"]

# Our choice: asyncio's stream buffers, and how far a receiver reads ahead of a slow host to reach a marker.
STREAM_LIMIT_BYTES: Final = 256 * 1024
CATCH_UP_BYTES: Final = 16 * 1024 * 1024
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


class Waking(Protocol):
    """Where a carrier's generations come from, as far as carrying needs it."""

    @property
    def chunk_bytes(self) -> int:
        """The longest payload of a data record."""

    async def changed(self) -> None:
        """Return when a generation was installed, activated or retired."""


class Carrier(Protocol):
    """One outer connection that carries an inner one, under whichever generations are in use."""

    @property
    def keyring(self) -> Waking:
        """The generations."""

    async def write(self, kind: RecordType, payload: bytes = b"") -> None:
        """Send one record; wait, and send nothing, while no generation may carry it. Raises TransportClosed."""

    async def read(self) -> tuple[RecordType, bytes]:
        """Return the next record. Raises RemoteProtocolError, TransportClosed."""

    def switch(self) -> None:
        """Go over to the generation that was just activated."""

    def may_bring(self, key_id: bytes) -> bool:
        """Whether records of this generation may still be on their way to us."""

    @property
    def is_behind(self) -> bool:
        """Whether a newer generation is installed than the last record showed."""

    async def close(self) -> None:
        """End after what is buffered has left."""

    def abort(self) -> None:
        """End at once."""


async def read_record(reader: asyncio.StreamReader) -> tuple[RecordHeader, bytes]:
    """Read one record as it is. Raises RemoteProtocolError for a header that cannot be, TransportClosed at the end."""
    try:
        header = parse_header(await reader.readexactly(HEADER_BYTES))
        return header, await reader.readexactly(header.length)
    except (asyncio.IncompleteReadError, OSError) as why:
        raise TransportClosed("the tunnel connection ended without an authenticated close") from why


def abort(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection at once, without what is still buffered."""
    # A transport that closed by itself once its buffer had left knows no loop any more, and cannot take an abort.
    with contextlib.suppress(AttributeError):
        writer.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection by RST, without what is still buffered: the host sees an error, not an end of data."""
    with contextlib.suppress(OSError):
        raw = writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    abort(writer)


class Tunnel:
    """The outer connection with index ``index``: records in order, both ways. ``on_progress``: its generation moved."""

    def __init__(
        self,
        keyring: Ring[Generation],
        index: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_progress: Callable[[], None],
    ) -> None:
        self.index: Final = index
        self.keyring = keyring
        self._reader = reader
        self._writer = writer
        self._on_progress = on_progress
        self._sending = SendLane(keyring, index)
        self._receiving = ReceiveLane(keyring, index)

    async def write(self, kind: RecordType, payload: bytes = b"") -> None:
        """Send one record; wait, and send nothing, while no generation may carry it. Raises TransportClosed."""
        while not self._may_send(kind, len(payload)):
            await self.keyring.changed()
        self._writer.write(self._sending.seal(kind, payload))
        self.keyring.count()
        try:
            await self._writer.drain()
        except OSError as why:
            raise TransportClosed("the tunnel connection ended while sending") from why

    def _may_send(self, kind: RecordType, size: int) -> bool:
        return self.keyring.may_send(size) if kind is RecordType.DATA else self.keyring.sending is not None

    def switch(self) -> None:
        """Show the peer the generation that was just activated: a marker, at once, at a record boundary."""
        marker = self._sending.switch()
        if marker and not self._writer.is_closing():
            self._writer.write(marker)

    def admit(self, header: RecordHeader, body: bytes) -> bytes:
        """Open one record. Raises RemoteProtocolError; the caller then ends the connection."""
        before = self._receiving.key_id
        payload = self._receiving.open(header, body)
        self.keyring.count()
        if self._receiving.key_id != before or self._receiving.closed:
            self._on_progress()
        return payload

    async def read(self) -> tuple[RecordType, bytes]:
        """Return the next record that is not a marker. Raises RemoteProtocolError, TransportClosed."""
        while True:
            header, body = await read_record(self._reader)
            payload = self.admit(header, body)
            if header.kind is not RecordType.MARKER:
                return header.kind, payload

    def may_bring(self, key_id: bytes) -> bool:
        """Whether records of this generation may still be on their way to us."""
        return not self._receiving.closed and self._receiving.key_id in (None, key_id)

    @property
    def is_behind(self) -> bool:
        """Whether a newer generation is installed than the last record showed."""
        return not self._receiving.closed and self._receiving.key_id != self.keyring.newest

    async def close(self) -> None:
        """End the outer connection after what is buffered has left."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """End the outer connection at once."""
        abort(self._writer)


async def carry(tunnel: Carrier, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry an inner connection through an open tunnel until both halves ended in order.

    Raises RemoteProtocolError, TransportClosed, OSError; then what was delivered is not complete and the caller
    resets the inner connection.
    """
    writer.transport.set_write_buffer_limits(high=STREAM_LIMIT_BYTES)
    halves = [asyncio.create_task(_outbound(tunnel, reader)), asyncio.create_task(_inbound(tunnel, writer))]
    try:
        await asyncio.gather(*halves)
    finally:
        for half in halves:
            half.cancel()
        await asyncio.gather(*halves, return_exceptions=True)


async def _outbound(tunnel: Carrier, reader: asyncio.StreamReader) -> None:
    while payload := await reader.read(tunnel.keyring.chunk_bytes):
        await tunnel.write(RecordType.DATA, payload)
    await tunnel.write(RecordType.CLOSE)


async def _inbound(tunnel: Carrier, writer: asyncio.StreamWriter) -> None:
    while True:
        kind, payload = await tunnel.read()
        if kind is RecordType.CLOSE:
            writer.write_eof()
            return
        writer.write(payload)
        await _wait_for_host(tunnel, writer)


async def _wait_for_host(tunnel: Carrier, writer: asyncio.StreamWriter) -> None:
    """Let a slow host slow the peer down, except while records of an old generation are still to be read.

    Those must be opened before their keys are retired; the peer put its marker right behind them, so what is read
    ahead is what was in flight, and at most CATCH_UP_BYTES.
    """
    while (size := writer.transport.get_write_buffer_size()) > STREAM_LIMIT_BYTES:
        if tunnel.is_behind and size < CATCH_UP_BYTES:
            return
        drained = asyncio.create_task(writer.drain())
        changed = asyncio.create_task(tunnel.keyring.changed())
        try:
            await asyncio.wait({drained, changed}, return_when=asyncio.FIRST_COMPLETED)
            if drained.done():
                drained.result()
        finally:
            drained.cancel()
            changed.cancel()
            await asyncio.gather(drained, changed, return_exceptions=True)
    await writer.drain()
