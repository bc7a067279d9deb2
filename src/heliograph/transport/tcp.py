"""Whole frames over TCP: a 4-byte big-endian length, then the frame."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from heliograph.errors import ConfigurationError, RemoteProtocolError, TransportClosed

__all__ = ["FRAME_BYTES_MAX", "TcpTransport", "dial", "listen"]

FRAME_BYTES_MAX = 64 * 2**20  # our choice: above the largest frame of a block of 1e7 sifted bits
# Our choices: a peer that vanished without a word is noticed after about 20 s, also while we wait for it to read.
_CONNECT_S = 5.0
_CLOSE_S = 1.0
_IDLE_S, _PROBES, _UNACKNOWLEDGED_S = 5, 3, 20


class TcpTransport:
    """Implements ``ports.Transport`` over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        with suppress(OSError, AttributeError):  # gone already, or a system without one of these options
            _watch(writer.get_extra_info("socket"))

    @property
    def peer_host(self) -> str:
        """The address at the other end, without its port; empty if the connection is gone already."""
        name = self._writer.get_extra_info("peername")
        return str(name[0]) if name else ""

    async def send(self, frame: bytes) -> None:
        """Send one frame and wait while the peer is slow. Raises TransportClosed."""
        try:
            self._writer.write(len(frame).to_bytes(4, "big") + frame)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise TransportClosed(f"the connection to the peer ended: {error}") from None
        if self._writer.is_closing():  # asyncio tells nobody who waited that the connection was closed on this side
            raise TransportClosed("the connection to the peer was closed")

    async def receive(self, limit: int = FRAME_BYTES_MAX) -> bytes:
        """Return the next frame of at most ``limit`` bytes. Raises TransportClosed, RemoteProtocolError."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > limit:
                raise RemoteProtocolError(f"a frame of {size} bytes; at most {limit} are taken here")
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            raise TransportClosed("the connection to the peer ended") from None

    def abort(self) -> None:
        """End the connection at once; whoever waits in send or receive gets TransportClosed."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """End the connection; what was sent still leaves, unless the peer does not read."""
        self._writer.close()
        closing = asyncio.ensure_future(self._writer.wait_closed())
        await asyncio.wait({closing}, timeout=_CLOSE_S)
        if not closing.done():
            self.abort()
        with suppress(OSError):  # it was gone already
            await closing


def _watch(raw: socket.socket) -> None:
    """Let the system notice a dead peer (tcp(7))."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _IDLE_S)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _UNACKNOWLEDGED_S)


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
            f"classical channel: cannot listen on {host}:{port} ({error.strerror or error}); "
            "free the port or name another"
        ) from None
