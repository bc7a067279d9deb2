"""A TLS 1.3 connection under an external preshared key, over asyncio's streams.

Python's ssl module has no preshared keys before 3.13. pyOpenSSL is on the OpenSSL of ``cryptography``, whose binding
has the two callbacks; they are bound to SHA-256 (RFC 8446 4.2.11), hence ChaCha20-Poly1305, the suite with a key of 256
bits. Each connection has a context of its own, which forgets: OpenSSL still gives a ticket out, but it opens nothing,
so nothing can be resumed past the key.

There are no certificates: a peer without the key fails the handshake. Key exchange is (EC)DHE or ML-KEM beside the
key in any case (psk_dhe_ke); OpenSSL offers X25519MLKEM768 first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL

from heliograph.encryptors.tunnel import abort
from heliograph.errors import RemoteProtocolError, TransportClosed

__all__ = ["EXPORTED_BYTES", "TlsStream", "accept_tls", "open_tls"]

EXPORTED_BYTES: Final = 32
_EXPORTER: Final = b"EXPORTER-heliograph tls-psk"  # RFC 8446 7.5
_SUITE: Final = b"TLS_CHACHA20_POLY1305_SHA256"
_CHUNK_BYTES: Final = 256 * 1024
_lib: Final[Any] = SSL._lib  # type: ignore[attr-defined]  # noqa: SLF001  - ADR 0049: pyOpenSSL has no call for it
_ffi: Final[Any] = SSL._ffi  # type: ignore[attr-defined]  # noqa: SLF001  - the same


class TlsStream:
    """One connection whose handshake is complete. ``identity``: the preshared key's; ``group``: of the key exchange."""

    def __init__(
        self,
        connection: SSL.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        identity: bytes,
        keep: tuple[object, ...],
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self.identity: Final = identity
        self.group: Final = connection.get_group_name()
        self._keep = keep  # the callbacks must live as long as the context
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
            raise TransportClosed(f"the TLS connection cannot send: {_reason(why)}") from None
        _flush(self._connection, self._writer)

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
                _flush(self._connection, self._writer)  # an answer of TLS itself, such as to a key update
                if got:
                    return
                await _more(self._connection, self._reader)
                continue
            except SSL.ZeroReturnError:
                if got:
                    return  # what came before the end is read first
                raise TransportClosed("the TLS connection ended without an authenticated close") from None
            except SSL.Error as why:
                raise RemoteProtocolError(f"a TLS record is damaged or forged: {_reason(why)}") from None
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
            _flush(self._connection, self._writer)
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

    def offer(_ssl: object, _hint: object, name: Any, name_max: int, key: Any, key_max: int) -> int:  # noqa: ANN401
        if len(identity) >= name_max or len(psk) > key_max:
            return 0
        _ffi.memmove(name, identity + b"\0", len(identity) + 1)
        _ffi.memmove(key, psk, len(psk))
        return len(psk)

    callback = _ffi.callback(
        "unsigned int (*)(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)", offer
    )
    context = _context()
    # No authority is trusted: a server that shows a certificate in place of the key is refused.
    context.set_verify(SSL.VERIFY_PEER, lambda *_: False)
    _lib.SSL_CTX_set_psk_client_callback(context._context, callback)  # noqa: SLF001  - the same
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    await _shake_hands(connection, reader, writer)
    return TlsStream(connection, reader, writer, identity, (callback, context))


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
    used: list[bytes] = []
    first = await _arrived(reader)  # before anything is made for it: who says nothing costs a socket and no more

    def look_up(_ssl: object, name: Any, key: Any, key_max: int) -> int:  # noqa: ANN401
        identity = bytes(_ffi.string(name))
        psk = find(identity)
        if psk is None or len(psk) > key_max:
            return 0
        used[:] = [identity]
        _ffi.memmove(key, psk, len(psk))
        return len(psk)

    callback = _ffi.callback("unsigned int (*)(SSL *, const char *, unsigned char *, unsigned int)", look_up)
    context = _context()
    _lib.SSL_CTX_set_psk_server_callback(context._context, callback)  # noqa: SLF001  - the same
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    _feed(connection, first)
    await _shake_hands(connection, reader, writer, lambda: on_shown() if used else None)
    if not used:  # it cannot be: without a certificate there is no other way through the handshake
        raise RemoteProtocolError("a TLS handshake succeeded without a preshared key")
    return TlsStream(connection, reader, writer, used[0], (callback, context))


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(_SUITE)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


async def _shake_hands(
    connection: SSL.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    on_flight: Callable[[], None] = lambda: None,
) -> None:
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            on_flight()
            _flush(connection, writer)
            await _more(connection, reader)
        except SSL.Error as why:
            _flush(connection, writer)  # TLS's own alert says why
            raise RemoteProtocolError(f"the TLS handshake failed: {_reason(why)}: another key, or none") from None
        else:
            _flush(connection, writer)
            return


async def _more(connection: SSL.Connection, reader: asyncio.StreamReader) -> None:
    _feed(connection, await _arrived(reader))


async def _arrived(reader: asyncio.StreamReader) -> bytes:
    try:
        data = await reader.read(_CHUNK_BYTES)
    except OSError as why:
        raise TransportClosed("the tunnel connection broke") from why
    if not data:
        raise TransportClosed("the tunnel connection ended without an authenticated close")
    return data


def _feed(connection: SSL.Connection, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[connection.bio_write(view) :]


def _flush(connection: SSL.Connection, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            data = connection.bio_read(_CHUNK_BYTES)
        except SSL.WantReadError:
            return
        if not writer.is_closing():
            writer.write(data)


def _reason(why: SSL.Error) -> str:
    """Return OpenSSL's words for an error: no key material is in them."""
    errors = why.args[0] if why.args and isinstance(why.args[0], list) else []
    return ", ".join(str(error[-1]) for error in errors) or type(why).__name__
