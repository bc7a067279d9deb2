"""The control channel: a TCP connection between the two agents, outside the tunnel it serves.

It promises nothing. Whoever reaches the port may speak; only proofs under a generation's own key count (consumer), and
tags under the two sites' peer key (establishment). So messages are small and capped, connections are few, and a
connection that proved nothing makes way for a new one.

    length u16 | MessagePack of a rotation message            a map: its first byte is never 0
    length u16 | 0 | tag 48 | signed bytes                    a message of the key establishment
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from heliograph.consumer.messages import Message, decode, encode
from heliograph.encryptors.addresses import Address
from heliograph.errors import ConfigurationError, RemoteProtocolError, TransportClosed
from heliograph.establishment.messages import MAX_SIGNED_BYTES, TAG_BYTES, Tagged

__all__ = ["ControlDialer", "ControlLink", "ControlListener"]

_LENGTH: Final = struct.Struct(">H")
_ESTABLISHMENT: Final = b"\0"
_MAX_FRAME_BYTES: Final = 1 + TAG_BYTES + MAX_SIGNED_BYTES
_MAX_LINKS: Final = 8
_MAX_UNSENT_BYTES: Final = 64 * 1024
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 5.0


class ControlLink:
    """One connection: whole messages, length-prefixed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.refusals = 0
        raw = writer.get_extra_info("socket")
        if raw is not None:
            # A peer that vanished without a FIN is noticed; the rotation's own time-outs notice it sooner.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Message | Tagged) -> None:
        """Queue one message; a link whose other end does not read is dropped."""
        if self._writer.is_closing():
            return
        data = _ESTABLISHMENT + message.tag + message.signed if isinstance(message, Tagged) else encode(message)
        self._writer.write(_LENGTH.pack(len(data)) + data)
        if self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.drop()

    async def receive(self) -> Message | Tagged:
        """Return the next message. Raises TransportClosed at the end, RemoteProtocolError for junk."""
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if not 1 <= size <= _MAX_FRAME_BYTES:
                raise RemoteProtocolError(f"a control message of {size} bytes: 1 to {_MAX_FRAME_BYTES} are allowed")
            data = await self._reader.readexactly(size)
            if data[:1] != _ESTABLISHMENT:
                return decode(data)
            if size < 1 + TAG_BYTES:
                raise RemoteProtocolError(f"a message of the key establishment with {size} bytes has no tag")
            return Tagged(data[1 + TAG_BYTES :], data[1 : 1 + TAG_BYTES])
        except (asyncio.IncompleteReadError, OSError) as why:
            raise TransportClosed("the control connection ended") from why

    @property
    def is_open(self) -> bool:
        """Whether a message sent now may arrive."""
        return not self._writer.is_closing()

    def drop(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()


class ControlListener:
    """The responder's end: a few connections at a time, each a task that calls ``serve``."""

    def __init__(self, address: Address, serve: Callable[[ControlLink], asyncio.Future[None]]) -> None:
        self._address = address
        self._serve = serve
        self._links: dict[ControlLink, asyncio.Future[None]] = {}
        self._server: asyncio.Server | None = None
        self.proven: ControlLink | None = None

    async def start(self) -> Address:
        """Listen and return the address. Raises ConfigurationError."""
        try:
            self._server = await asyncio.start_server(
                self._accept, self._address.host, self._address.port, limit=2 * _MAX_FRAME_BYTES
            )
        except OSError as why:
            raise ConfigurationError(f"control: cannot listen on {self._address}: {why.strerror or why}") from why
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._links) >= _MAX_LINKS:
            oldest = next(link for link in self._links if link is not self.proven)
            self._links.pop(oldest).cancel()
            oldest.drop()
        link = ControlLink(reader, writer)
        work = self._serve(link)
        self._links[link] = work
        work.add_done_callback(lambda _: self._forget(link))

    def _forget(self, link: ControlLink) -> None:
        link.drop()
        self._links.pop(link, None)
        if self.proven is link:
            self.proven = None

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        work = list(self._links.values())
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()


class ControlDialer:
    """The initiator's end: dials, serves, and dials again after a growing pause."""

    def __init__(self, address: Address, serve: Callable[[ControlLink], asyncio.Future[None]]) -> None:
        self._address = address
        self._serve = serve
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to dial."""
        self._task = asyncio.create_task(self._keep_dialling())

    async def _keep_dialling(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_LONGEST_PAUSE_SECONDS):
                    reader, writer = await asyncio.open_connection(
                        self._address.host, self._address.port, limit=2 * _MAX_FRAME_BYTES
                    )
                link = ControlLink(reader, writer)
                try:
                    await self._serve(link)
                finally:
                    link.drop()
            lasted = loop.time() - began
            pause = _FIRST_PAUSE_SECONDS if lasted > _LONGEST_PAUSE_SECONDS else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Stop dialling and end the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
