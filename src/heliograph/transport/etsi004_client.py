"""An application's side of ETSI GS QKD 004: OPEN_CONNECT, GET_KEY and CLOSE over TCP with mutual TLS.

async with Etsi004Client("127.0.0.1", 25575, client_tls(...)) as km:
    opened = await km.open_connect("sae:sae-a", "sae:sae-b", Qos(key_chunk_size=32, ttl_s=3600))
    reply = await km.get_key(opened.ksid, 0)
    await km.close_stream(opened.ksid)
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from types import TracebackType
from typing import Self, TypeVar

from heliograph.errors import RemoteProtocolError, TransportClosed
from heliograph.kme.etsi004 import (
    HEADER_BYTES,
    NULL_KSID,
    REPLY_BYTES_MAX,
    Close,
    CloseReply,
    GetKey,
    GetKeyReply,
    OpenConnect,
    OpenReply,
    Qos,
    Reply,
    Request,
    Status,
    encode,
    payload_length,
    read_reply,
)

__all__ = ["Etsi004Client"]

CONNECT_S = 10.0
_Reply = TypeVar("_Reply", OpenReply, GetKeyReply, CloseReply)


class Etsi004Client:
    """One connection to the KM of this site; calls take turns. Status codes are returned, not raised."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        self._where, self._tls = (host, port), tls
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open_connect(self, source: str, destination: str, qos: Qos, ksid: bytes = NULL_KSID) -> OpenReply:
        """Open a stream; blocks up to the QoS's timeout for the peer. Raises TransportClosed, RemoteProtocolError."""
        return self._as(await self._call(OpenConnect(source, destination, qos, ksid)), OpenReply)

    async def get_key(self, ksid: bytes, index: int, metadata_size: int = 1024) -> GetKeyReply:
        """Ask for one chunk. Raises TransportClosed, RemoteProtocolError."""
        reply = self._as(await self._call(GetKey(ksid, index, metadata_size)), GetKeyReply)
        if reply.status is Status.SUCCESSFUL and reply.index != index:
            raise RemoteProtocolError("the key manager answered with another index")
        return reply

    async def close_stream(self, ksid: bytes) -> CloseReply:
        """Close a stream. Raises TransportClosed, RemoteProtocolError."""
        return self._as(await self._call(Close(ksid)), CloseReply)

    async def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async def _call(self, request: Request) -> Reply:
        async with self._turn:
            try:
                if self._streams is None:
                    host, port = self._where
                    async with asyncio.timeout(CONNECT_S):
                        self._streams = await asyncio.open_connection(host, port, ssl=self._tls, server_hostname=host)
                reader, writer = self._streams
                writer.write(encode(request))
                await writer.drain()
                header = await reader.readexactly(HEADER_BYTES)
                return read_reply(header, await reader.readexactly(payload_length(header, REPLY_BYTES_MAX)))
            except (asyncio.IncompleteReadError, OSError, ssl.SSLError, TimeoutError) as error:
                await self.close()
                raise TransportClosed(f"the key manager at {self._where[0]}:{self._where[1]}: {error}") from None

    @staticmethod
    def _as(reply: Reply, kind: type[_Reply]) -> _Reply:
        if not isinstance(reply, kind):
            raise RemoteProtocolError("the key manager answered another call")
        return reply
