"""The KME's door for the site's SAEs: ETSI GS QKD 014 V1.1.1 over mutual TLS or a Unix socket, every answer JSON."""

from __future__ import annotations

import logging
import ssl
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from aiohttp import web

from heliograph.errors import HeliographError
from heliograph.http.callers import Callers, CertificateCallers
from heliograph.http.json_http import MAX_BODY_BYTES, Answer, JsonHttpServer, read_body
from heliograph.kme import etsi014
from heliograph.kme.boundary import Network
from heliograph.kme.supply import RequestRefused, Supply

__all__ = ["MAX_BODY_BYTES", "KmeServer", "serve"]

PREFIX = ("", "api", "v1", "keys")  # 5.1: /api/v1/keys/{SAE ID}/{method}
VERBS = MappingProxyType({"status": ("GET",), "enc_keys": ("GET", "POST"), "dec_keys": ("GET", "POST")})

# Our choices.
MAX_WAITING = 256  # requests queued for the store; one more is told to come back
RETRY_AFTER = MappingProxyType({"Retry-After": "1"})

_log = logging.getLogger("heliograph.kme")


class KmeServer(JsonHttpServer):
    """A listening KME. ``close`` lets requests that are under way finish. ``callers``: tells who asks."""

    def __init__(self, supply: Supply, callers: Callers | None = None, networks: tuple[Network, ...] = ()) -> None:
        super().__init__(networks)
        self._supply = supply
        self._callers = callers or CertificateCallers()

    def waiting_max(self) -> int:
        """Return how many requests may wait for the store."""
        return MAX_WAITING

    def refusal(self, error: HeliographError) -> Answer:
        """Return the Error document (6.5) with the status of tables 4, 6 and 8."""
        status, body = etsi014.error_answer(error)
        return Answer(status, body, RETRY_AFTER if status == 503 else {})

    def plain_refusal(self, status: int, text: str) -> Answer:
        """Return an Error document with this text."""
        if status == 400 and text != etsi014.MESSAGE_BAD_REQUEST:
            text = f"{etsi014.MESSAGE_BAD_REQUEST}: {text}"
        return Answer(status, etsi014.error_document(text))

    async def serve_request(self, request: web.BaseRequest) -> Answer:
        """Answer one request of clause 5."""
        # (1) Route. The raw path is split before it is decoded: an SAE ID may contain an encoded slash.
        parts = request.rel_url.raw_path.split("/")
        if len(parts) != len(PREFIX) + 2 or tuple(parts[:-2]) != PREFIX or parts[-1] not in VERBS:
            return Answer(404, etsi014.error_document("no such resource; see ETSI GS QKD 014 5.1 for the paths"))
        name, method = parts[-2:]
        if request.method not in VERBS[method]:
            allowed = ", ".join(VERBS[method])
            return Answer(405, etsi014.error_document(f"{method} takes {allowed}"), {"Allow": allowed})
        # (2) Who is calling: from the certificate, for every request (5.1). Before anything of the body is read.
        caller = self._callers.identify(request)
        try:
            peer = unquote_to_bytes(name).decode("utf-8")
        except UnicodeDecodeError:
            raise RequestRefused("the SAE ID in the path is not URL-encoded UTF-8") from None
        self._supply.authorise(caller, peer)
        # (3) What is asked for. (4) The store, on its own threads, with the keys gone before they are answered.
        body = await read_body(request)
        query = request.rel_url.raw_query_string
        if request.method == "GET" and body:
            raise RequestRefused("a GET request has no body; use POST")
        if query and (request.method == "POST" or method == "status"):
            raise RequestRefused(f"{method} by {request.method} takes no query")
        return await self._method(method, caller, peer, None if request.method == "GET" else body, query)

    async def _method(self, method: str, caller: str, peer: str, body: bytes | None, query: str) -> Answer:
        supply, limits = self._supply, self._supply.limits
        if method == "status":
            return Answer(200, etsi014.status_document(await self.on_store(lambda: supply.status(caller, peer))))
        if method == "enc_keys":
            if body is None:
                number = etsi014.read_key_request_query(query, limits)
            else:
                number = etsi014.read_key_request(body, limits)
            keys = await self.on_store(lambda: supply.enc_keys(caller, peer, number))
        else:
            ids = etsi014.read_key_ids_query(query) if body is None else etsi014.read_key_ids(body, limits)
            keys = await self.on_store(lambda: supply.dec_keys(caller, peer, ids))
        _log.info("%s for %s with %s: %s", method, caller, peer, " ".join(key.key_id for key in keys))
        return Answer(200, etsi014.container_document(keys))


async def serve(supply: Supply, host: str, port: int, tls: ssl.SSLContext) -> KmeServer:
    """Serve ``supply`` on ``host:port`` with the context of ``server_tls``. Raises ConfigurationError."""
    server = KmeServer(supply)
    await server.start(host, port, tls)
    return server
