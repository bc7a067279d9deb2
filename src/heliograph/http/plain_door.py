"""A short way for plain requests: one whole request in one piece, with no header but the usual ones (ADR 0046).

aiohttp's server is built for every form of HTTP, and takes longer for each request. What is not exactly of the plain
form goes, with its connection, to aiohttp for good: the short way refuses nothing and guesses nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, cast

from aiohttp.helpers import rfc822_formatted_time

from heliograph.http.answers import Answer

__all__ = ["PlainDoor", "PlainRequest", "PlainServer", "read_plain"]

_HEAD_MAX = 2048  # our choice: heads are remembered, so that a client's next one costs no parsing
_HEADS_MAX = 512
_BODY_MAX = 16 * 1024  # our choice: more than 128 key_IDs take

_HEAD = re.compile(
    # No empty segment in front, no fragment, no other scheme: where yarl could see something else than this.
    rb"(GET|POST) (/[\w.~%-][\w.~%/-]*)(?:\?([\w.~%=&-]*))? HTTP/1\.1\r\n((?:[A-Za-z-]+:[ \t]*[!-~][ -~]*\r\n)+)\r\n",
    re.ASCII,
)
_IGNORED = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})
_LENGTH = re.compile(r"0|[1-9][0-9]{0,4}")


class _Connection(Protocol):
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...  # noqa: ANN401


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A whole request. ``connection``: tells who is calling, as aiohttp's requests do."""

    verb: str
    path: str
    query: str
    body: bytes = field(repr=False)
    connection: _Connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """Return what the transport knows."""
        return self.connection.get_extra_info(name, default)


class PlainServer(Protocol):
    """Whose requests these are."""

    async def answer_plain(self, request: PlainRequest) -> Answer:
        """Answer one request; never raises."""

    def takes(self, transport: asyncio.BaseTransport) -> bool:
        """Tell whether a connection from there is taken at all."""


def read_plain(data: bytes) -> tuple[str, str, str, bytes] | None:
    """Return verb, raw path, raw query and body if ``data`` is one whole plain request, and nothing else."""
    end = data.find(b"\r\n\r\n") + 4
    if not 4 <= end <= _HEAD_MAX:
        return None
    head = _read_head(bytes(data[:end]))
    if head is None or len(data) - end != head[3]:
        return None
    return *head[:3], bytes(data[end:])


@lru_cache(_HEADS_MAX)
def _read_head(head: bytes) -> tuple[str, str, str, int] | None:
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    length: str | None = None
    hosts = 0
    for line in found[4].decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name == "content-length" and length is None and _LENGTH.fullmatch(value) and int(value) <= _BODY_MAX:
            length = value
        elif name == "host":
            hosts += 1
        elif name not in _IGNORED and (name, value.lower()) != ("connection", "keep-alive"):
            return None  # a second length, a transfer coding, an expectation, what we do not know
    if hosts != 1 or (found[1] == b"POST" and length is None):
        return None
    return found[1].decode(), found[2].decode(), (found[3] or b"").decode(), int(length or 0)


def _written(answer: Answer, common: bytes) -> bytes:
    further = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    return b"HTTP/1.1 %d %s\r\n%sContent-Type: %s\r\nContent-Length: %d\r\nDate: %s\r\n%s\r\n%s" % (
        answer.status,
        HTTPStatus(answer.status).phrase.encode(),
        common,
        answer.content_type.encode(),
        len(answer.body),
        rfc822_formatted_time().encode(),
        further.encode("latin-1"),
        answer.body,
    )


class PlainDoor:
    """Makes the connections of one listening server. ``general``: makes aiohttp's protocol for all that is not plain.

    ``keepalive_s``: how long a connection may stay without a request.
    """

    def __init__(
        self, server: PlainServer, general: Callable[[], asyncio.Protocol], headers: dict[str, str], keepalive_s: float
    ) -> None:
        self.server = server
        self.general = general
        self.common = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        self.keepalive_s = keepalive_s
        self.closing = False
        self.connections: set[_PlainConnection] = set()

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return _PlainConnection(self)

    async def close(self, timeout_s: float) -> None:
        """Let what is under way finish, and close every connection that is still here."""
        self.closing = True
        for connection in list(self.connections):
            connection.close_if_idle()
        if busy := [connection.serving for connection in self.connections if connection.serving is not None]:
            await asyncio.wait(busy, timeout=timeout_s)
        for connection in list(self.connections):
            connection.transport.close()


class _PlainConnection(asyncio.Protocol):
    """One request at a time; what comes meanwhile waits unread."""

    transport: asyncio.Transport

    def __init__(self, door: PlainDoor) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self.serving: asyncio.Task[None] | None = None
        self._held = b""
        self._choked = False
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, if it comes from where it may."""
        self.transport = cast("asyncio.Transport", transport)  # no subclass of it in other event loops
        if not self._door.server.takes(transport):
            self.transport.abort()
            return
        self._door.connections.add(self)
        self._last = self._loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; a request under way goes on: its keys may be burnt already."""
        del exc
        self._leave()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """Return what the transport knows."""
        return self.transport.get_extra_info(name, default)

    def data_received(self, data: bytes) -> None:
        """Answer a plain request; hand everything else, with the connection, to aiohttp."""
        if self.serving is not None or self._choked:
            self._held += data
            self.transport.pause_reading()
            return
        found = read_plain(data)
        if found is None or self._door.closing:
            self._hand_over(data)
            return
        request = PlainRequest(*found, self)
        self.serving = self._loop.create_task(self._serve(request))

    async def _serve(self, request: PlainRequest) -> None:
        answer = await self._door.server.answer_plain(request)
        self.serving = None
        if self.transport.is_closing():
            return
        self.transport.write(_written(answer, self._door.common))
        self._last = self._loop.time()
        if self._door.closing:
            self.transport.close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        if self._held and not self._choked:
            data, self._held = self._held, b""
            self.transport.resume_reading()
            self.data_received(data)

    def pause_writing(self) -> None:
        """Take no further request from who does not read the answers."""
        self._choked = True

    def resume_writing(self) -> None:
        """Go on."""
        self._choked = False
        if self.serving is None:
            self._go_on()

    def close_if_idle(self) -> None:
        """Close, unless an answer is due."""
        if self.serving is None:
            self.transport.close()

    def _watch(self) -> None:
        idle_until = self._last + self._door.keepalive_s
        if self.serving is None and self._loop.time() >= idle_until:
            self.transport.close()
            return
        when = max(idle_until, self._loop.time() + 1.0)
        self._timer = self._loop.call_at(when, self._watch)

    def _hand_over(self, data: bytes) -> None:
        self._leave()
        protocol = self._door.general()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        protocol.data_received(data)

    def _leave(self) -> None:
        self._door.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
