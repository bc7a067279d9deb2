"""The KME's door while the site is sealed: whoever may call is told 503, as the standard says for "not now"."""

from __future__ import annotations

from typing import NoReturn

from aiohttp import web

from heliograph.errors import HeliographError, StoreUnavailable
from heliograph.http.callers import Callers, Connected, may_call
from heliograph.http.json_http import Answer, JsonHttpServer
from heliograph.kme import etsi014
from heliograph.kme.boundary import Network

__all__ = ["SealedKmeServer"]


class SealedKmeServer(JsonHttpServer):
    """Identifies the caller as the open door does, and holds no key and no supply."""

    def __init__(self, callers: Callers, networks: tuple[Network, ...] = ()) -> None:
        super().__init__(networks)
        self._callers = callers

    def caller_of(self, connection: Connected) -> str:
        """Return the SAE ID behind a connection, "" if it may not call."""
        return may_call(self._callers, connection) or ""

    def refusal(self, error: HeliographError) -> Answer:
        """Return the Error document (ETSI GS QKD 014 6.5) with the status of tables 4, 6 and 8."""
        status, body = etsi014.error_answer(error)
        return Answer(status, body, {"Retry-After": "60"} if status == 503 else {})

    def plain_refusal(self, status: int, text: str) -> Answer:
        """Return an Error document with this text."""
        return Answer(status, etsi014.error_document(text))

    async def serve_request(self, request: web.BaseRequest) -> NoReturn:
        """Refuse: 401 to who may not call at all, 503 to everybody else."""
        await self.rest("")  # who is registered is not known here
        self._callers.identify(request)
        raise StoreUnavailable("the site is sealed; run `heliograph site unseal`")
