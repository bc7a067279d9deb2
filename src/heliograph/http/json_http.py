"""An HTTP server whose every answer is JSON and every limit is small: what the key manager's doors have in common."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, TypeVar

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge

from heliograph.doors.door import Door, Handshake, TlsHandshake
from heliograph.doors.rests import Rests
from heliograph.doors.sources import Sources
from heliograph.errors import ConfigurationError, HeliographError, NotPermitted, StoreUnavailable
from heliograph.http.answers import Answer
from heliograph.http.callers import Connected
from heliograph.http.plain_door import PlainDoor
from heliograph.http.psk_door import Find, PskHandshake
from heliograph.http.store_groups import RunGroup, StoreGroups, Unsettled
from heliograph.kme.boundary import Network, is_inside
from heliograph.kme.quotas import TooManyRequests
from heliograph.kme.supply import RequestRefused, Supply

__all__ = ["MAX_BODY_BYTES", "Answer", "JsonHttpServer", "Overloaded", "listen_unix", "read_body"]

# Our choices.
MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
BACKLOG = 128
KEEPALIVE_SECONDS = 75.0
SHUTDOWN_SECONDS = 5.0
STORE_THREADS = 2
MAX_WAITING = 256  # requests queued for the store; one more is told to come back
HEADERS = MappingProxyType({"Cache-Control": "no-store", "Server": "heliograph"})

_log = logging.getLogger("heliograph.kme")
_Result = TypeVar("_Result")


class Overloaded(StoreUnavailable):
    """Too many requests wait for the key store; try again."""


class JsonHttpServer(ABC):
    """A listening server. ``close`` lets requests that are under way finish.

    ``networks``: addresses from which a connection is taken at all; empty for any. One from elsewhere is closed before
    a byte of a request is read.
    """

    what: ClassVar[str] = "KME"

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._store = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="kme-store")
        self._together: dict[str, StoreGroups] = {}
        self._further: dict[str, ThreadPoolExecutor] = {}
        self._waiting: Counter[str] = Counter()  # by link: a store that hangs fills no other's queue
        self._runner: web.ServerRunner | None = None
        self._door: Door | None = None
        self._tls: TlsHandshake | None = None
        self._local: asyncio.Server | None = None
        self._rests = Rests()
        self._plain: PlainDoor | None = None

    @abstractmethod
    async def serve_request(self, request: web.BaseRequest) -> Answer:
        """Answer one request. Raises HeliographError, of which ``refusal`` makes an answer."""

    @abstractmethod
    def refusal(self, error: HeliographError) -> Answer:
        """Return the standard's answer for a refusal."""

    @abstractmethod
    def plain_refusal(self, status: int, text: str) -> Answer:
        """Return the standard's error document with this text: bodies too large, malformed HTTP, internal errors."""

    @abstractmethod
    def caller_of(self, connection: Connected) -> str:
        """Return the name of the registered caller behind a connection, "" if there is none."""

    @property
    def port(self) -> int:
        """The port it listens on; the real one when 0 was asked for."""
        if self._door is None:
            raise ConfigurationError(f"the {self.what} is not listening")
        return self._door.port

    async def start(self, host: str, port: int, tls: ssl.SSLContext, sources: Sources | None = None) -> None:
        """Listen with TLS. Raises ConfigurationError if the address cannot be used.

        ``sources``: what the doors of this process know of where connections come from.
        """
        self._tls = TlsHandshake(tls)
        await self._listen(host, port, self._tls, sources)

    async def start_psk(
        self, host: str, port: int, find: Find, find_tls12: Find | None = None, sources: Sources | None = None
    ) -> None:
        """Listen with TLS under preshared keys, see ``PskDoor``. Raises ConfigurationError."""
        await self._listen(host, port, PskHandshake(find, find_tls12), sources)

    async def _listen(self, host: str, port: int, handshake: Handshake, sources: Sources | None) -> None:
        door = Door(handshake, await self._set_up(), self.caller_of, self._welcomes, sources)
        try:
            await door.listen(host, port)
        except OSError as error:
            await self.close()
            raise ConfigurationError(f"{self.what} address {host}:{port}: {_reason(error)}") from error
        self._door = door

    def renew(self, tls: ssl.SSLContext) -> None:
        """Shake hands under another context from now on; established connections go on."""
        if self._tls is not None:
            self._tls.tls = tls

    def admit_from(self, networks: Sequence[Network], stays: Callable[[asyncio.BaseTransport], bool]) -> None:
        """Take connections from ``networks`` only, and end at once those that do not come from there or not stay.

        An answer that is on its way to one of them is lost: who may not have it does not get it.
        """
        self._networks = tuple(networks)
        handlers = [] if self._runner is None or self._runner.server is None else self._runner.server.connections
        plain = [] if self._plain is None else [one.transport for one in self._plain.connections]
        for transport in [*(one.transport for one in handlers), *plain]:
            if transport is not None and not (self.takes(transport) and stays(transport)):
                assert isinstance(transport, asyncio.Transport)
                transport.abort()

    async def start_unix(self, path: Path) -> None:
        """Listen on a Unix socket, without TLS: who calls is told by the system. Raises ConfigurationError."""
        server = await self._set_up()
        try:
            raw = listen_unix(path, self.what)
        except ConfigurationError:
            await self.close()
            raise
        self._local = await asyncio.get_running_loop().create_unix_server(server, sock=raw, backlog=BACKLOG)

    async def close(self) -> None:
        """Stop listening, finish what is under way, close every connection."""
        if self._local is not None:
            self._local.close()
            self._local = None
        if self._door is not None:
            door, self._door = self._door, None
            await door.close()
        if self._plain is not None:
            await self._plain.close(SHUTDOWN_SECONDS)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        for groups in self._together.values():
            groups.close()
        for executor in (self._store, *self._further.values()):
            executor.shutdown()

    async def on_store(self, call: Callable[[], _Result], link: str = "") -> _Result:
        """Run ``call`` on the threads of a link's store. Raises Overloaded when too many wait already."""
        if self._waiting[link] >= self.waiting_max():
            raise Overloaded(f"{self._waiting[link]} requests wait for the key store already")
        self._waiting[link] += 1
        try:
            if self._together:
                return await self._together[link].run(call)
            return await asyncio.get_running_loop().run_in_executor(self._threads(link), call)
        finally:
            self._waiting[link] -= 1

    def commit_together(self, run: RunGroup, later: Unsettled | None = None, link: str = "") -> None:
        """Give the calls that wait for the store to ``run`` in groups: one commit for each group.

        ``later``: the store, if it leaves something for later; ``link``: which further link's, empty for the first.
        Each store has groups and threads of its own: one that is slow or fails holds up no other.
        """
        self._together[link] = StoreGroups(self._threads(link), run, later)

    def _threads(self, link: str) -> ThreadPoolExecutor:
        if not link:
            return self._store
        if link not in self._further:
            self._further[link] = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="kme-store")
        return self._further[link]

    def waiting_max(self) -> int:
        """Return how many requests may wait for the store."""
        return MAX_WAITING

    def takes(self, transport: asyncio.BaseTransport) -> bool:
        """Tell whether a connection from there is taken at all."""
        if not self._networks:
            return True
        name = transport.get_extra_info("peername")
        return bool(name) and self._welcomes(str(name[0]))

    def _welcomes(self, address: str) -> bool:
        return not self._networks or is_inside(address, self._networks)

    async def let_in(self, identify: Callable[[], str], supply: Supply) -> str:
        """Return who asks, and count the request. Raises NotPermitted, TooManyRequests: to whom hurries, after a rest.

        ``identify``: tells the SAE ID, or raises NotPermitted.
        """
        caller = ""
        try:
            caller = identify()
            supply.admit(caller)
        except TooManyRequests:
            await self.rest(caller)
            raise
        except NotPermitted:
            await self.rest("")
            raise
        return caller

    async def rest(self, caller: str) -> None:
        """Wait before a refusal is answered; "" for all callers that are not registered."""
        await self._rests.rest(caller)

    def _connections(self, general: web.Server) -> Callable[[], asyncio.BaseProtocol]:
        """Return what makes the protocol of each new connection."""
        return general

    async def _set_up(self) -> Callable[[], asyncio.BaseProtocol]:
        self._runner = web.ServerRunner(
            _Server(self._handle, self.plain_refusal, self.takes), shutdown_timeout=SHUTDOWN_SECONDS
        )
        await self._runner.setup()
        assert self._runner.server is not None
        return self._connections(self._runner.server)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if request.version not in {HttpVersion10, HttpVersion11}:
            # aiohttp lets HTTP/2.0 and HTTP/0.9 pass, and a request line without a version, as if they were HTTP/1.1.
            refused = _response(self.plain_refusal(400, "the HTTP version is not 1.1"))
            refused.force_close()
            return refused
        return _response(await self.settled(self.serve_request(request)))

    async def settled(self, serving: Awaitable[Answer]) -> Answer:
        """Return the answer, or the standard's answer for whatever was raised instead."""
        try:
            answer = await serving
        except HeliographError as error:
            if isinstance(error, StoreUnavailable):
                _log.error("%s", error)
            answer = self.refusal(error)
        except HTTPRequestEntityTooLarge:
            answer = self.plain_refusal(413, f"the body exceeds {MAX_BODY_BYTES} bytes")
        except web.RequestPayloadError:
            answer = self.plain_refusal(400, "the body is malformed")
        except Exception as error:  # noqa: BLE001  - no traceback may reach a caller, nor locals with keys a log
            _log.error("request failed: %s", type(error).__name__)
            answer = self.plain_refusal(503, "Error on server side")
        return answer


def listen_unix(path: Path, what: str) -> socket.socket:
    """Return a bound stream socket, open to every user of this machine: who may do what is decided by credentials.

    Its directory must belong to this user, and nobody else may write there, or others could put a false socket in its
    place. Raises ConfigurationError.
    """
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if unfit := _unfit(path):
            raw.close()
            raise ConfigurationError(f"{what} socket {path}: {unfit}")
        path.unlink(missing_ok=True)
        raw.bind(str(path))
        path.chmod(0o666)
    except OSError as error:
        raw.close()
        raise ConfigurationError(
            f"{what} socket {path}: {error.strerror or error}; name a path this user can write"
        ) from None
    return raw


def _unfit(path: Path) -> str:
    place = path.parent.stat()
    if place.st_mode & 0o022 or place.st_uid != os.geteuid():
        return f"others can write in {path.parent}; name a directory of this user, mode 0755"
    if path.exists() and not path.is_socket():
        return "a file that is no socket stands there; name another path"
    return ""


async def read_body(request: web.BaseRequest) -> bytes:
    """Return the body. Raises RequestRefused for a slow one, HTTPRequestEntityTooLarge for a large one."""
    if not request.body_exists:
        return b""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp does it: the real answer has not begun
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise HTTPRequestEntityTooLarge(MAX_BODY_BYTES)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise RequestRefused(f"the body did not arrive within {BODY_SECONDS:.0f} s") from None


def _response(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.status,
        body=answer.body,
        headers={**HEADERS, **answer.headers},
        content_type=answer.content_type,
    )


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "in use by another program; stop that one or choose another port"
    if error.errno == errno.EACCES:
        return "this user may not listen there; choose a port above 1023"
    return f"{error.strerror or error}; name an address of this machine"


class _Server(web.Server):
    """aiohttp's server with our limits, whose own refusals (unreadable HTTP) are JSON too."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        plain_refusal: Callable[[int, str], Answer],
        takes: Callable[[asyncio.BaseTransport], bool],
    ) -> None:
        super().__init__(handler, request_factory=_limited_request)
        self.plain_refusal = plain_refusal
        self.takes = takes

    def __call__(self) -> web.RequestHandler:
        return _RequestHandler(self)


def _limited_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


class _RequestHandler(web.RequestHandler):
    __slots__ = ("_json_server",)

    def __init__(self, manager: _Server) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is how aiohttp spells "no access log"
            keepalive_timeout=KEEPALIVE_SECONDS,
            auto_decompress=False,  # nothing here is compressed: no decompression bombs
        )
        self._json_server = manager

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._json_server.takes(transport):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read as HTTP; neither the text nor a traceback is repeated."""
        del message
        _log.info("refused what is not HTTP (%s)", type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        status, text = (status, "Bad request format") if status < 500 else (503, "Error on server side")
        answer = _response(self._json_server.plain_refusal(status, text))
        answer.force_close()
        return answer
