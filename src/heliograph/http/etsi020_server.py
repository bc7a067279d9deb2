"""The KME's door for other key managers of the same protected site: ETSI GS QKD 020 V1.1.1 over mutual TLS 1.3."""

from __future__ import annotations

import asyncio
import logging
from types import MappingProxyType
from typing import ClassVar

from aiohttp import web

from heliograph.errors import HeliographError, NotPermitted
from heliograph.http.callers import Connected, client_certificate
from heliograph.http.json_http import Answer, JsonHttpServer, read_body
from heliograph.kme import etsi020
from heliograph.kme.etsi020_records import InterworkingError, Slug
from heliograph.kme.identity import kme_id_from_certificate
from heliograph.kme.interworking import Interworking
from heliograph.kme.supply import RequestRefused

__all__ = ["Etsi020Server"]

PATHS = MappingProxyType(
    {
        "/kmapi/versions": "GET",
        "/kmapi/v1/ext_keys": "POST",
        "/kmapi/v1/ext_keys/ack": "POST",
        "/kmapi/v1/ext_keys/void": "POST",
    }
)
RETRY_AFTER = MappingProxyType({"Retry-After": "1"})

_log = logging.getLogger("heliograph.kme")


class Etsi020Server(JsonHttpServer):
    """A listening interworking interface."""

    what: ClassVar[str] = "ETSI 020"

    def __init__(self, interworking: Interworking) -> None:
        super().__init__()
        self._interworking = interworking

    def end_strangers(self) -> None:
        """End at once the connections of key managers that are not declared any more."""
        self.admit_from((), self._is_declared)

    def _is_declared(self, connection: asyncio.BaseTransport) -> bool:
        return bool(self.caller_of(connection))

    def caller_of(self, connection: Connected) -> str:
        """Return the KME ID behind a connection, "" if it is not declared here."""
        try:
            return self._peer(connection)
        except NotPermitted:
            return ""

    def _peer(self, connection: Connected) -> str:
        kme = kme_id_from_certificate(client_certificate(connection))
        self._interworking.peer(kme)
        return kme

    def refusal(self, error: HeliographError) -> Answer:
        """Return the standard's error document."""
        status, body = etsi020.error_answer(error)
        return Answer(status, body, RETRY_AFTER if status == 503 else {})

    def plain_refusal(self, status: int, text: str) -> Answer:
        """Return an error document: malformed requests are the standard's missing-parameters."""
        slug = Slug.SERVER if status >= 500 else Slug.MISSING_PARAMETERS
        _, body = etsi020.error_answer(InterworkingError(slug, text))
        return Answer(503 if status >= 500 else status, body)

    async def serve_request(self, request: web.BaseRequest) -> Answer:
        """Answer one request."""
        path = request.rel_url.raw_path
        if path not in PATHS:
            return self.plain_refusal(404, f"no such resource; there are {', '.join(PATHS)}")
        if request.method != PATHS[path]:
            refused = self.plain_refusal(405, f"{path} takes {PATHS[path]}")
            return Answer(405, refused.body, {"Allow": PATHS[path]})
        # Who is calling comes first, for every request; a stranger's body is not read.
        try:
            kme = self._peer(request)
        except NotPermitted:
            await self.rest("")
            raise
        if request.rel_url.raw_query_string:
            raise InterworkingError(Slug.MISSING_PARAMETERS, "the request takes no query")
        try:
            body = await read_body(request)
        except RequestRefused as slow:
            raise InterworkingError(Slug.TIMEOUT, str(slow)) from None
        if path == "/kmapi/versions":
            return Answer(200, self._interworking.versions())
        serve = {
            "/kmapi/v1/ext_keys": self._interworking.ext_keys,
            "/kmapi/v1/ext_keys/ack": self._interworking.ack,
            "/kmapi/v1/ext_keys/void": self._interworking.void,
        }[path]
        status, answer = await self.on_store(lambda: serve(kme, body))
        _log.info("%s of KME %s: %s", path, kme, status)
        return Answer(status, answer)
