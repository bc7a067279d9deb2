"""A door whose connections are TLS under external preshared keys: what asyncio's own TLS cannot do.

``PskDoor`` stands between a socket's transport and the protocol of a server: it speaks TLS to the one and plain bytes
to the other, which sees the identity of the key as ``get_extra_info("psk_identity")``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from OpenSSL import SSL

from heliograph.doors.waiting import HANDSHAKE_SECONDS
from heliograph.http.tls import note_refusal
from heliograph.openssl import AES_256_GCM_SHA384, PskConnection, psk_server, reason

__all__ = ["PSK_IDENTITY", "Find", "PskDoor", "PskHandshake"]

Find = Callable[[bytes], bytes | None]

PSK_IDENTITY: Final = "psk_identity"
_READ_BYTES: Final = 16384  # a TLS record


class _Inside(asyncio.Transport):
    """What the server's protocol writes to."""

    def __init__(self, door: PskDoor, raw: asyncio.Transport, identity: bytes) -> None:
        super().__init__()
        self._door, self._raw, self._identity = door, raw, identity

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        return self._identity if name == PSK_IDENTITY else self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._door.send(bytes(data))

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def close(self) -> None:
        self._door.finish()

    def abort(self) -> None:
        self._raw.abort()

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._door.inside = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._door.inside is not None
        return self._door.inside


class PskDoor(asyncio.Protocol):
    """One connection. ``find``: identity to key; ``make``: the protocol inside; ``handshake_s``: its time to begin.

    ``find_tls12``: identity to key for TLS 1.2; without it there is TLS 1.3 only. ``begun``: is called when the
    handshake is over, however it ended.
    """

    def __init__(
        self,
        find: Find,
        make: Callable[[], asyncio.BaseProtocol],
        handshake_s: float,
        find_tls12: Find | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        self._begun = begun
        self._find, self._find_tls12 = find, find_tls12
        self._asked = find  # which of the two gave the key of the handshake
        self._given: list[bytes] = []  # the key that the handshake is made under, until that is complete
        self._make = make
        self._handshake_s = handshake_s
        self.inside: asyncio.Protocol | None = None

    @cached_property
    def _psk(self) -> PskConnection:
        # Made when the first bytes come: a stranger who is silent costs a socket only.
        def looking_in(find: Find) -> Find:
            def look_up(identity: bytes) -> bytes | None:
                psk = find(identity)
                self._given[:] = [] if psk is None else [psk]
                self._asked = find
                return psk

            return look_up

        older = None if self._find_tls12 is None else looking_in(self._find_tls12)
        return psk_server(AES_256_GCM_SHA384, looking_in(self._find), older)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the handshake, not for ever."""
        assert isinstance(transport, asyncio.Transport)
        self._raw = transport
        self._guard = asyncio.get_running_loop().call_later(self._handshake_s, self._late)

    def data_received(self, data: bytes) -> None:
        """Take what came: first the handshake, then requests."""
        self._psk.take(data)
        if self.inside is None and not self._shake_hands():
            return
        while not self._raw.is_closing():
            try:
                plain = self._psk.connection.recv(_READ_BYTES)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self.finish()
                break
            except SSL.Error as why:
                note_refusal(f"a record is damaged or forged: {reason(why)}")
                self._flush()
                self._raw.abort()
                return
            assert self.inside is not None
            self.inside.data_received(plain)
        self._flush()

    def eof_received(self) -> bool:
        """Tell the server's protocol, and let the transport close."""
        if self.inside is not None:
            self.inside.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on."""
        self._guard.cancel()
        self._begun()
        if self.inside is not None:
            self.inside.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        if self.inside is not None:
            self.inside.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self.inside is not None:
            self.inside.resume_writing()

    def send(self, data: bytes) -> None:
        """Encrypt and queue what the server says."""
        view = memoryview(data)
        while view and not self._raw.is_closing():
            try:
                view = view[self._psk.connection.send(view) :]
            except SSL.Error:  # the connection was ended by its peer
                self._raw.abort()
                return
        self._flush()

    def finish(self) -> None:
        """End: what is queued still goes, and TLS's own close after it."""
        if not self._raw.is_closing():
            with contextlib.suppress(SSL.Error):  # it has ended already
                self._psk.connection.shutdown()
            self._flush()
            self._raw.close()

    def _shake_hands(self) -> bool:
        """Return whether the handshake is complete now."""
        try:
            self._psk.connection.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return False
        except SSL.Error as why:
            note_refusal(f"{reason(why)}: the client has no preshared key of this door, or not for its suite")
            self._flush()  # TLS's own alert says why
            self._raw.close()
            return False
        self._guard.cancel()
        if not self._psk.used:  # it cannot be: without a certificate there is no other way through the handshake
            self._raw.abort()
            return False
        if not self._still_valid(self._psk.used[0]):
            note_refusal("the preshared key was replaced or taken away during the handshake")
            self._raw.abort()
            return False
        self._flush()
        made = self._make()
        assert isinstance(made, asyncio.Protocol)
        self.inside = made
        made.connection_made(_Inside(self, self._raw, self._psk.used[0]))
        self._begun()
        return True

    def _still_valid(self, identity: bytes) -> bool:
        """Tell whether the key of the handshake is the one of this identity now: a reload may have come between."""
        given, now = self._given.copy(), self._asked(identity)
        self._given.clear()
        return bool(given) and now is not None and hmac.compare_digest(given[0], now)

    def _late(self) -> None:
        note_refusal(f"the handshake was not complete after {self._handshake_s:.0f} s")
        self._raw.abort()

    def _flush(self) -> None:
        data = self._psk.give()
        if data and not self._raw.is_closing():
            self._raw.write(data)


class PskHandshake:
    """Shakes hands on accepted sockets of a ``doors.Door``. ``find`` and ``find_tls12``: as for ``PskDoor``."""

    def __init__(self, find: Find, find_tls12: Find | None = None) -> None:
        self._find, self._find_tls12 = find, find_tls12

    async def __call__(self, raw: socket.socket, make: Callable[[], asyncio.BaseProtocol]) -> None:
        """Shake hands, or end the connection."""
        over = asyncio.Event()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: PskDoor(self._find, make, HANDSHAKE_SECONDS, self._find_tls12, over.set), raw
        )
        try:
            await over.wait()
        except asyncio.CancelledError:
            transport.abort()
            raise
