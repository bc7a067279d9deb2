"""A TLS 1.3 connection under an external preshared key, over asyncio's streams.

The suite is ChaCha20-Poly1305, with a key of 256 bits; the handshake and its rules are those of ``heliograph.openssl``.
OpenSSL offers X25519MLKEM768 first for the key exchange.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL

from heliograph.encryptors.tunnel import abort
from heliograph.errors import RemoteProtocolError, TransportClosed
from heliograph.openssl import CHACHA20_POLY1305_SHA256, PskConnection, psk_client, psk_server, reason

__all__ = ["EXPORTED_BYTES", "TlsStream", "accept_tls", "open_tls"]

EXPORTED_BYTES: Final = 32
_EXPORTER: Final = b"EXPORTER-heliograph tls-psk"  # RFC 8446 7.5
_SUITE: Final = CHACHA20_POLY1305_SHA256
_CHUNK_BYTES: Final = 256 * 1024


class TlsStream:
    """One connection whose handshake is complete. ``identity``: the preshared key's; ``group``: of the key exchange."""

    def __init__(
        self,
        psk: PskConnection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._psk = psk
        self._connection = psk.connection
        self._reader = reader
        self._writer = writer
        self.identity: Final = psk.used[0]
        self.group: Final = psk.connection.get_group_name()
        self._waiting = bytearray()

    def exported(self) -> bytes:
        """Return 32 bytes that only the two ends of this connection know (RFC 8446 7.5)."""
        return self._connection.export_keying_material(_EXPORTER, EXPORTED_BYTES, b"")

    def send(self, data: bytes) -> None:
        """Encrypt and queue; ``drain`` waits. Raises TransportClosed."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._connection.send(view) :]
        except SSL.Error as why:
            raise TransportClosed(f"the TLS connection cannot send: {reason(why)}") from None
        _flush(self._psk, self._writer)

    async def drain(self) -> None:
        """Wait until the peer keeps up. Raises TransportClosed."""
        try:
            await self._writer.drain()
        except OSError as why:
            raise TransportClosed("the tunnel connection ended while sending") from why

    async def read_exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises TransportClosed at the end, RemoteProtocolError if forged."""
        while len(self._waiting) < size:
            await self._receive()
        data = bytes(memoryview(self._waiting)[:size])
        del self._waiting[:size]
        return data

    async def _receive(self) -> None:
        """Take what is there; wait for more if there is nothing."""
        got = 0
        while True:
            try:
                chunk = self._connection.recv(16384)
            except SSL.WantReadError:
                _flush(self._psk, self._writer)  # an answer of TLS itself, such as to a key update
                if got:
                    return
                await _more(self._psk, self._reader)
                continue
            except SSL.ZeroReturnError:
                if got:
                    return  # what came before the end is read first
                raise TransportClosed("the TLS connection ended without an authenticated close") from None
            except SSL.Error as why:
                raise RemoteProtocolError(f"a TLS record is damaged or forged: {reason(why)}") from None
            self._waiting += chunk
            got += len(chunk)
            if got >= _CHUNK_BYTES:
                return

    @property
    def unsent(self) -> int:
        """Bytes that are encrypted and have not left yet."""
        return self._writer.transport.get_write_buffer_size()

    def finish(self) -> None:
        """Begin to end: what is buffered still goes, and TLS's own close after it."""
        if self._writer.is_closing():
            return
        with contextlib.suppress(SSL.Error):
            self._connection.shutdown()
            _flush(self._psk, self._writer)
        self._writer.close()

    async def close(self) -> None:
        """End after what is buffered has left."""
        self.finish()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """End at once."""
        abort(self._writer)


async def open_tls(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, identity: bytes, psk: bytes
) -> TlsStream:
    """Shake hands as client under one preshared key. Raises TransportClosed, RemoteProtocolError."""
    psk_connection = psk_client(_SUITE, identity, psk)
    await _shake_hands(psk_connection, reader, writer)
    return TlsStream(psk_connection, reader, writer)


async def accept_tls(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    find: Callable[[bytes], bytes | None],
    on_shown: Callable[[], None] = lambda: None,
) -> TlsStream:
    """Shake hands as server. ``find``: identity to preshared key, None for one that is refused.

    ``on_shown``: the client's first flight was made with the key that it names (its binder, RFC 8446 4.2.11.2, is
    right); whoever saw one could repeat it, so this proves no more than that somebody had the key.
    Raises TransportClosed, RemoteProtocolError.
    """
    first = await _arrived(reader)  # before anything is made for it: who says nothing costs a socket and no more
    psk_connection = psk_server(_SUITE, find)
    psk_connection.take(first)
    used = psk_connection.used
    await _shake_hands(psk_connection, reader, writer, lambda: on_shown() if used else None)
    if not used:  # it cannot be: without a certificate there is no other way through the handshake
        raise RemoteProtocolError("a TLS handshake succeeded without a preshared key")
    return TlsStream(psk_connection, reader, writer)


async def _shake_hands(
    psk: PskConnection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    on_flight: Callable[[], None] = lambda: None,
) -> None:
    while True:
        try:
            psk.connection.do_handshake()
        except SSL.WantReadError:
            on_flight()
            _flush(psk, writer)
            await _more(psk, reader)
        except SSL.Error as why:
            _flush(psk, writer)  # TLS's own alert says why
            raise RemoteProtocolError(f"the TLS handshake failed: {reason(why)}: another key, or none") from None
        else:
            _flush(psk, writer)
            return


async def _more(psk: PskConnection, reader: asyncio.StreamReader) -> None:
    psk.take(await _arrived(reader))


async def _arrived(reader: asyncio.StreamReader) -> bytes:
    try:
        data = await reader.read(_CHUNK_BYTES)
    except OSError as why:
        raise TransportClosed("the tunnel connection broke") from why
    if not data:
        raise TransportClosed("the tunnel connection ended without an authenticated close")
    return data


def _flush(psk: PskConnection, writer: asyncio.StreamWriter) -> None:
    data = psk.give()
    if data and not writer.is_closing():
        writer.write(data)
