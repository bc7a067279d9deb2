"""A listening socket from which connections are taken one by one, as ``Waiting`` says, and given to a server.

asyncio's own server begins every handshake that anybody asks for, at once, on the loop that serves the others
(ADR 0055). Here an accepted socket waits unread until its first message is whole and it is its turn.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from heliograph.doors.shares import Shares
from heliograph.doors.sources import Sources, source_of
from heliograph.doors.waiting import HANDSHAKE_SECONDS, Waiting

__all__ = ["Door", "Handshake", "TlsHandshake"]

# Our choices.
_BACKLOG: Final = 256
_ACCEPTS_AT_ONCE: Final = 32  # then others on the loop have their turn
_NEXT_SECONDS: Final = 0.01  # how soon somebody whose turn it is not yet is looked at again
_SHUTDOWN_SECONDS: Final = 2.0  # how long a closed connection waits for the peer's own close
_LINGER_SECONDS: Final = 5.0  # how long it waits for the peer to read what was said last
_SHORT_SECONDS: Final = 0.1  # without descriptors nothing is accepted for so long
_SWEEP_SECONDS: Final = 0.5
_KEEPALIVE: Final = (5, 5, 3)  # idle, between probes, probes: a caller that vanished holds its place for 20 s
_RECORD_HEAD: Final = 5  # RFC 8446 5.1: type, version, length
_HANDSHAKE_RECORD: Final = 22
_RECORD_MAX: Final = 2**14 + 256

_log = logging.getLogger("heliograph.kme")

Factory = Callable[[], asyncio.BaseProtocol]
# Shakes hands on an accepted socket; makes the protocol, and tells it of its connection, when the proof is there.
Handshake = Callable[[socket.socket, Factory], Awaitable[None]]


class TlsHandshake:
    """With certificates. ``tls``: may be exchanged for another context at any time."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.tls = tls

    async def __call__(self, raw: socket.socket, make: Factory) -> None:
        """Shake hands. Raises OSError."""
        await asyncio.get_running_loop().connect_accepted_socket(
            make,
            raw,
            ssl=self.tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )


@dataclass(eq=False, slots=True)
class _Caller:
    """Somebody who has not proved anything yet."""

    raw: socket.socket
    wanted: int = 0  # bytes of its first message that wake us
    task: asyncio.Task[None] | None = None
    begun: bool = False


@dataclass(slots=True)
class _Open:
    """A connection whose caller is known, until its socket is gone. ``closed``: since when it is being closed."""

    raw: TransportSocket
    closed: float = 0.0


class Door:
    """``make``: the protocol of a connection whose caller is known; ``who``: tells its name, "" if not registered.

    ``welcome``: whether a connection from an address is taken at all; ``sources``: shared by a process's doors.
    """

    def __init__(
        self,
        handshake: Handshake,
        make: Factory,
        who: Callable[[asyncio.BaseTransport], str],
        welcome: Callable[[str], bool] = lambda _: True,
        sources: Sources | None = None,
    ) -> None:
        self.handshake: Final = handshake
        self._make, self._who, self._welcome = make, who, welcome
        self._waiting: Waiting[_Caller] = Waiting(sources or Sources())
        self._shares: Shares[asyncio.Transport] = Shares()
        self._open: dict[asyncio.Transport, _Open] = {}
        self._listening: list[socket.socket] = []
        self._turn: asyncio.Handle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._said: dict[str, float] = {}

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listening[0].getsockname()[1])

    @property
    def waiting(self) -> int:
        """How many connections wait for their handshake."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """How many connections there are whose caller is known."""
        return len(self._shares)

    async def listen(self, host: str, port: int) -> None:
        """Listen. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        # asyncio resolves, makes and binds the sockets; it is not asked to accept.
        server = await self._loop.create_server(asyncio.Protocol, host, port, start_serving=False)
        self._listening = [raw.dup() for raw in server.sockets]
        server.close()
        try:
            for raw in self._listening:
                raw.settimeout(0.0)
                raw.listen(_BACKLOG)
        except OSError:
            await self.close()
            raise
        for raw in self._listening:
            self._loop.add_reader(raw, self._accept, raw)
        self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._end_overdue)

    async def close(self) -> None:
        """Take no connection any more, and end those that have not proved anything. Others stay."""
        for handle in (self._turn, self._sweep):
            if handle is not None:
                handle.cancel()
        for raw in self._listening:
            self._loop.remove_reader(raw)
            raw.close()
        self._listening = []
        for one in self._waiting.everybody():
            self._send_away(one)
        under_way = self._waiting.all_under_way()
        tasks = [one.task for one in under_way if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in under_way:
            if not one.begun:  # its task was cancelled before its first step
                one.raw.close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                raw, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    self._make_room(listening)
                return  # accept(2): other errors are of the connection, and there may be a next one
            raw.settimeout(0.0)
            if self._welcome(str(address[0])):
                self._let_wait(raw, str(address[0]))
            else:
                self._say("connection from outside the declared networks closed")
                raw.close()

    def _make_room(self, listening: socket.socket) -> None:
        """Out of descriptors: whoever has said nothing yet makes way."""
        self._say("no file descriptor left for a connection; raise the process's limit (ulimit -n)")
        for one in self._waiting.silent():
            self._send_away(one)
        self._loop.remove_reader(listening)
        self._loop.call_later(_SHORT_SECONDS, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening, self._accept, listening)

    def _let_wait(self, raw: socket.socket, address: str) -> None:
        one = _Caller(raw)
        gone = self._waiting.enter(one, source_of(address), self._loop.time())
        if gone is one:
            raw.close()
            return
        if gone is not None:
            self._end(gone)
        self._loop.add_reader(raw, self._heard, one)

    def _heard(self, one: _Caller) -> None:
        """Look at what has come, without taking it: a first message that is not whole costs no handshake."""
        try:
            head = one.raw.recv(_RECORD_HEAD, socket.MSG_PEEK)
            if not head:
                raise ConnectionError
            whole = _RECORD_HEAD
            if len(head) == _RECORD_HEAD:
                whole += int.from_bytes(head[3:], "big")
            is_tls = head[0] == _HANDSHAKE_RECORD and whole <= _RECORD_HEAD + _RECORD_MAX
            if is_tls and one.wanted < whole and len(one.raw.recv(whole, socket.MSG_PEEK)) < whole:
                # socket(7): nobody is woken before so much is there, or the end.
                one.wanted = whole
                one.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, whole)
                return
            one.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._send_away(one)
            return
        self._loop.remove_reader(one.raw)
        self._waiting.hello(one, self._loop.time())
        self._look()

    def _look(self) -> None:
        """See soon whose turn it is."""
        if self._turn is not None:
            self._turn.cancel()
        self._turn = self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Begin one handshake at most: between two of them others on the loop have their turn."""
        self._turn = None
        one = self._waiting.next(self._loop.time())
        if one is not None:
            one.task = self._loop.create_task(self._shake_hands(one))
        if self._waiting.somebody_is_ready:
            self._turn = (
                self._loop.call_later(_NEXT_SECONDS, self._take_turn)
                if one is None
                else self._loop.call_soon(self._take_turn)
            )

    async def _shake_hands(self, one: _Caller) -> None:
        one.begun = True
        try:
            await self.handshake(one.raw, lambda: _Entry(self, one))
        except (OSError, asyncio.CancelledError):
            pass  # why is in the log already, where it is worth a line
        except Exception as error:  # noqa: BLE001  - no traceback of a stranger's making
            _log.error("a handshake failed: %s", type(error).__name__)
        finally:
            self._waiting.ended(one, self._loop.time(), None)
            if self._listening:
                self._look()

    def admit(self, one: object, transport: asyncio.Transport) -> asyncio.BaseProtocol | None:
        """Take a connection whose handshake is complete; None if its caller holds too many, or the door is closed."""
        assert isinstance(one, _Caller)
        if not self._listening:
            return None
        caller = self._who(transport)
        self._waiting.ended(one, self._loop.time(), caller)
        gone = self._shares.enter(transport, caller)
        if gone is not None:
            self._say(f"a connection was ended: {caller or 'callers that are not registered'} may hold no more")
            gone.abort()
        if gone is transport:
            return None
        raw = transport.get_extra_info("socket")
        if raw is not None:  # gone already
            self._open[transport] = _Open(raw)
            with suppress(OSError, AttributeError):  # gone meanwhile, or a system without one of these options
                _watch(raw)
        return self._make()

    def _end_overdue(self) -> None:
        for one in self._waiting.overdue(self._loop.time()):
            if one.task is None:
                self._send_away(one)
            else:
                one.task.cancel()
        self._shares.forget_closed()
        self._end_lingering()
        self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._end_overdue)

    def _end_lingering(self) -> None:
        """End what was closed and is not gone: no share counts it, and a peer that reads nothing could keep it."""
        now = self._loop.time()
        for transport, one in list(self._open.items()):
            if one.raw.fileno() < 0:
                del self._open[transport]
            elif transport.is_closing():
                one.closed = one.closed or now
                if now - one.closed >= _LINGER_SECONDS:
                    transport.abort()
                    with suppress(OSError):  # asyncio's TLS does nothing on ``abort`` once it was closed twice
                        one.raw.shutdown(socket.SHUT_RDWR)

    def _send_away(self, one: _Caller) -> None:
        self._waiting.leave(one)
        self._end(one)

    def _end(self, one: _Caller) -> None:
        self._loop.remove_reader(one.raw)
        one.raw.close()

    def _say(self, text: str) -> None:
        """Log one line a second of each kind: whoever reaches the port can cause one."""
        now = time.monotonic()
        if now - self._said.get(text, -1.0) >= 1.0:
            self._said[text] = now
            _log.warning("%s", text)


class _Entry(asyncio.Protocol):
    """Stands at the end of a handshake, and makes way for the server's own protocol."""

    def __init__(self, door: Door, one: _Caller) -> None:
        self._door, self._one = door, one

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        made = self._door.admit(self._one, transport)
        if made is None:
            transport.abort()
            return
        transport.set_protocol(made)
        made.connection_made(transport)


def _watch(raw: socket.socket) -> None:
    """Let the system notice a caller that vanished (tcp(7))."""
    idle, between, probes = _KEEPALIVE
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
