"""Whole frames over TCP: a 4-byte big-endian length, then the frame."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from heliograph.errors import ConfigurationError, RemoteProtocolError, TransportClosed

__all__ = ["FRAME_BYTES_MAX", "TcpTransport", "dial", "listen"]

FRAME_BYTES_MAX = 64 * 2**20  # our choice: above the largest frame of a block of 1e7 sifted bits
_CONNECT_S = 5.0


class TcpTransport:
    """Implements ``ports.Transport`` over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, frame: bytes) -> None:
        """Send one frame and wait while the peer is slow."""
        try:
            self._writer.write(len(frame).to_bytes(4, "big") + frame)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise TransportClosed(f"the connection to the peer ended: {error}") from None

    async def receive(self, limit: int = FRAME_BYTES_MAX) -> bytes:
        """Return the next frame of at most ``limit`` bytes."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > limit:
                raise RemoteProtocolError(f"a frame of {size} bytes; at most {limit} are taken here")
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            raise TransportClosed("the connection to the peer ended") from None

    async def close(self) -> None:
        """End the connection."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # it was gone already


async def dial(host: str, port: int) -> TcpTransport:
    """Connect to a listening site. Raises TransportClosed if nobody answers."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        raise TransportClosed(f"{host}:{port} does not answer: {error or 'no answer in time'}") from None
    return TcpTransport(reader, writer)


async def listen(host: str, port: int, accept: Callable[[TcpTransport], Awaitable[None]]) -> asyncio.Server:
    """Listen for the peer. Raises ConfigurationError if the address cannot be used."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(TcpTransport(reader, writer))

    try:
        return await asyncio.start_server(serve, host, port)
    except OSError as error:
        raise ConfigurationError(
            f"classical channel: cannot listen on {host}:{port} ({error.strerror}); free the port or name another"
        ) from None
