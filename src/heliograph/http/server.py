"""The KME's door for the site's SAEs: ETSI GS QKD 014 V1.1.1 over mutual TLS, every answer JSON."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge

from heliograph.errors import ConfigurationError, HeliographError, NotPermitted, StoreUnavailable
from heliograph.kme import etsi014
from heliograph.kme.identity import sae_id_from_certificate
from heliograph.kme.supply import RequestRefused, Supply

__all__ = ["KmeServer", "serve"]

PREFIX = ("", "api", "v1", "keys")  # 5.1: /api/v1/keys/{SAE ID}/{method}
VERBS = MappingProxyType({"status": ("GET",), "enc_keys": ("GET", "POST"), "dec_keys": ("GET", "POST")})

# Our choices.
MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
HANDSHAKE_SECONDS = 5.0
BACKLOG = 128
KEEPALIVE_SECONDS = 75.0
SHUTDOWN_SECONDS = 5.0
STORE_THREADS = 2
MAX_WAITING = 256  # requests queued for the store; one more is told to come back
RETRY_AFTER = MappingProxyType({"Retry-After": "1"})
HEADERS = MappingProxyType({"Cache-Control": "no-store", "Server": "heliograph"})

_log = logging.getLogger("heliograph.kme")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class KmeServer:
    """A listening KME. ``close`` lets requests that are under way finish."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._store = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="kme-store")
        self._waiting = 0
        self._runner: web.ServerRunner | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port it listens on; the real one when 0 was asked for."""
        if self._server is None or not self._server.sockets:
            raise ConfigurationError("the KME is not listening")
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Listen. Raises ConfigurationError if the address cannot be used."""
        self._runner = web.ServerRunner(_JsonServer(self._handle), shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        assert self._runner.server is not None
        try:
            # A stranger who opens connections and never ends a handshake holds each for a short time only.
            self._server = await asyncio.get_running_loop().create_server(
                self._runner.server, host, port, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS, backlog=BACKLOG
            )
        except OSError as error:
            await self.close()
            raise ConfigurationError(f"KME address {host}:{port}: {_reason(error)}") from error

    async def close(self) -> None:
        """Stop listening, finish what is under way, close every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._store.shutdown()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        try:
            answer = await self._serve(request)
        except HeliographError as error:
            if isinstance(error, StoreUnavailable):
                _log.error("%s", error)
            status, body = etsi014.error_answer(error)
            answer = _Answer(status, body, RETRY_AFTER if status == 503 else {})
        except HTTPRequestEntityTooLarge:
            answer = _Answer(413, etsi014.error_document(f"the body exceeds {MAX_BODY_BYTES} bytes"))
        except web.RequestPayloadError:
            answer = _Answer(400, etsi014.error_document(f"{etsi014.MESSAGE_BAD_REQUEST}: the body is malformed"))
        except Exception as error:  # noqa: BLE001  - no traceback may reach a caller, nor locals with keys a log
            _log.error("request failed: %s", type(error).__name__)
            answer = _Answer(503, etsi014.error_document(etsi014.MESSAGE_SERVER))
        return _response(answer)

    async def _serve(self, request: web.BaseRequest) -> _Answer:
        # (1) Route. The raw path is split before it is decoded: an SAE ID may contain an encoded slash.
        parts = request.rel_url.raw_path.split("/")
        if len(parts) != len(PREFIX) + 2 or tuple(parts[:-2]) != PREFIX or parts[-1] not in VERBS:
            return _Answer(404, etsi014.error_document("no such resource; see ETSI GS QKD 014 5.1 for the paths"))
        name, method = parts[-2:]
        if request.method not in VERBS[method]:
            allowed = ", ".join(VERBS[method])
            return _Answer(405, etsi014.error_document(f"{method} takes {allowed}"), {"Allow": allowed})
        # (2) Who is calling: from the certificate, for every request (5.1). Before anything of the body is read.
        caller = _caller(request)
        try:
            peer = unquote_to_bytes(name).decode("utf-8")
        except UnicodeDecodeError:
            raise RequestRefused("the SAE ID in the path is not URL-encoded UTF-8") from None
        self._supply.authorise(caller, peer)
        # (3) What is asked for. (4) The store, on its own threads, with the keys gone before they are answered.
        body = await _body(request)
        query = request.rel_url.raw_query_string
        if request.method == "GET" and body:
            raise RequestRefused("a GET request has no body; use POST")
        if query and (request.method == "POST" or method == "status"):
            raise RequestRefused(f"{method} by {request.method} takes no query")
        return await self._method(method, caller, peer, None if request.method == "GET" else body, query)

    async def _method(self, method: str, caller: str, peer: str, body: bytes | None, query: str) -> _Answer:
        supply, limits = self._supply, self._supply.limits
        if method == "status":
            return _Answer(200, etsi014.status_document(await self._on_store(lambda: supply.status(caller, peer))))
        if method == "enc_keys":
            if body is None:
                number = etsi014.read_key_request_query(query, limits)
            else:
                number = etsi014.read_key_request(body, limits)
            keys = await self._on_store(lambda: supply.enc_keys(caller, peer, number))
        else:
            ids = etsi014.read_key_ids_query(query) if body is None else etsi014.read_key_ids(body, limits)
            keys = await self._on_store(lambda: supply.dec_keys(caller, peer, ids))
        _log.info("%s for %s with %s: %s", method, caller, peer, " ".join(key.key_id for key in keys))
        return _Answer(200, etsi014.container_document(keys))

    async def _on_store(self, call: Callable[[], _Result]) -> _Result:
        if self._waiting >= MAX_WAITING:
            raise StoreUnavailable(f"{self._waiting} requests wait for the key store already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._store, call)
        finally:
            self._waiting -= 1


async def serve(supply: Supply, host: str, port: int, tls: ssl.SSLContext) -> KmeServer:
    """Serve ``supply`` on ``host:port`` with the context of ``server_tls``. Raises ConfigurationError."""
    server = KmeServer(supply)
    await server.start(host, port, tls)
    return server


def _caller(request: web.BaseRequest) -> str:
    connection = request.get_extra_info("ssl_object")
    certificate = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLObject) else None
    if not certificate:
        raise NotPermitted("no client certificate was shown")
    return _sae_id(certificate)


@lru_cache(maxsize=1024)
def _sae_id(certificate: bytes) -> str:
    return sae_id_from_certificate(certificate)


async def _body(request: web.BaseRequest) -> bytes:
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


def _response(answer: _Answer) -> web.Response:
    return web.Response(
        status=answer.status,
        body=answer.body,
        headers={**HEADERS, **answer.headers},
        content_type="application/json",
    )


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "in use by another program; stop that one or choose another port"
    if error.errno == errno.EACCES:
        return "this user may not listen there; choose a port above 1023"
    return f"{error.strerror or error}; name an address of this machine"


class _JsonServer(web.Server):
    """aiohttp's server with our limits, whose own refusals (unreadable HTTP) are JSON too."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler, request_factory=_limited_request)

    def __call__(self) -> web.RequestHandler:
        return _JsonRequestHandler(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is how aiohttp spells "no access log"
            keepalive_timeout=KEEPALIVE_SECONDS,
            auto_decompress=False,  # nothing in 014 is compressed: no decompression bombs
        )


def _limited_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


class _JsonRequestHandler(web.RequestHandler):
    __slots__ = ()

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
        status, text = (status, etsi014.MESSAGE_BAD_REQUEST) if status < 500 else (503, etsi014.MESSAGE_SERVER)
        answer = _response(_Answer(status, etsi014.error_document(text)))
        answer.force_close()
        return answer
