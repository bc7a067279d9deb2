"""The KME's door for the site's SAEs: ETSI GS QKD 014 V1.1.1 over mutual TLS or a Unix socket, every answer JSON."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from aiohttp import web

from heliograph.errors import HeliographError, InsufficientKeys, StoreUnavailable
from heliograph.http.callers import Callers, CertificateCallers, Connected, may_call
from heliograph.http.json_http import HEADERS, KEEPALIVE_SECONDS, MAX_BODY_BYTES, Answer, JsonHttpServer, read_body
from heliograph.http.plain_door import PlainDoor, PlainRequest
from heliograph.kme import etsi014
from heliograph.kme.boundary import Network
from heliograph.kme.key_facts import KeyFacts
from heliograph.kme.quotas import TooManyRequests
from heliograph.kme.supply import RequestRefused, SaePair, Supply
from heliograph.types import StoredKey

__all__ = ["MAX_BODY_BYTES", "KmeServer", "serve"]

PREFIX = ("", "api", "v1", "keys")  # 5.1: /api/v1/keys/{SAE ID}/{method}
VERBS = MappingProxyType({"status": ("GET",), "enc_keys": ("GET", "POST"), "dec_keys": ("GET", "POST")})

# Our choices.
MAX_WAITING = 256  # requests queued for the store; one more is told to come back
MAX_WAITING_OF_ONE = 64  # of one SAE, so that it cannot fill the queue of the others
_PATHS_REMEMBERED = 512
RETRY_AFTER = MappingProxyType({"Retry-After": "1"})

_Result = TypeVar("_Result")
_log = logging.getLogger("heliograph.kme")


class KmeServer(JsonHttpServer):
    """A listening KME. ``close`` lets requests that are under way finish. ``callers``: tells who asks."""

    def __init__(self, supply: Supply, callers: Callers | None = None, networks: tuple[Network, ...] = ()) -> None:
        super().__init__(networks)
        self._supply = supply
        self._callers = callers or CertificateCallers()
        self._queued: Counter[tuple[str, str]] = Counter()

    def admit(self, callers: Callers, networks: tuple[Network, ...]) -> None:
        """Let these in from now on and nobody else; a connection of somebody else ends at once."""
        self._callers = callers
        self.admit_from(networks, lambda connection: self._supply.serves(may_call(callers, connection) or ""))

    def caller_of(self, connection: Connected) -> str:
        """Return the SAE ID behind a connection, "" if it is not registered here."""
        sae = may_call(self._callers, connection)
        return sae if sae is not None and self._supply.serves(sae) else ""

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
        return await self.answer(
            request.method,
            request.rel_url.raw_path,
            request.rel_url.raw_query_string,
            lambda: self._callers.identify(request),
            lambda: read_body(request),
        )

    async def answer_plain(self, request: PlainRequest) -> Answer:
        """Answer a request that came the short way, by the same rules."""

        async def body() -> bytes:
            return request.body

        caller = lambda: self._callers.identify(request)  # noqa: E731
        return await self.settled(self.answer(request.verb, request.path, request.query, caller, body))

    def _connections(self, general: web.Server) -> Callable[[], asyncio.BaseProtocol]:
        self._plain = PlainDoor(self, general, dict(HEADERS), KEEPALIVE_SECONDS)
        return self._plain

    async def answer(
        self, verb: str, path: str, query: str, caller: Callable[[], str], body: Callable[[], Awaitable[bytes]]
    ) -> Answer:
        """Answer a request for the raw ``path`` and ``query``. Raises HeliographError, as ``serve_request``.

        ``caller`` tells the SAE ID, or raises NotPermitted; ``body`` reads the body, once its sender is known.
        """
        # (1) Who is calling: from the certificate, for every request (5.1). Before anything of the body is read, and
        # before the path is looked at: who asks for what is not there, or what it may not have, is counted too.
        sae = await self.let_in(caller, self._supply)
        # (2) Route. The raw path is split before it is decoded: an SAE ID may contain an encoded slash.
        name, method = _route(path)
        if not method:
            return Answer(404, etsi014.error_document("no such resource; see ETSI GS QKD 014 5.1 for the paths"))
        if verb not in VERBS[method]:
            allowed = ", ".join(VERBS[method])
            return Answer(405, etsi014.error_document(f"{method} takes {allowed}"), {"Allow": allowed})
        try:
            peer = unquote_to_bytes(name).decode("utf-8")
        except UnicodeDecodeError:
            raise RequestRefused("the SAE ID in the path is not URL-encoded UTF-8") from None
        pair = self._supply.authorise(sae, peer)
        # (3) What is asked for. (4) The store, on its own threads, with the keys gone before they are answered.
        content = await body()
        if verb == "GET" and content:
            raise RequestRefused("a GET request has no body; use POST")
        if query and (verb == "POST" or method == "status"):
            raise RequestRefused(f"{method} by {verb} takes no query")
        try:
            return await self._method(method, pair, None if verb == "GET" else content, query)
        except InsufficientKeys:
            await self.rest(sae)
            raise

    async def _method(self, method: str, pair: SaePair, body: bytes | None, query: str) -> Answer:
        supply, limits, caller, peer = self._supply, self._supply.limits, pair.local_sae, pair.remote_sae
        if method == "status":
            status = await self._on_store_for(pair, lambda: supply.status(caller, peer))
            return Answer(200, etsi014.status_document(status))
        if method == "enc_keys":
            asked = etsi014.read_key_request_query(query, limits) if body is None else None
            asked = asked or etsi014.read_key_request(body or b"", limits)
            facts, wishes = asked.wishes.facts, asked.wishes
            number, further = asked.number, asked.additional
            taken = False

            def take() -> list[StoredKey]:
                nonlocal taken
                found = supply.enc_keys(
                    caller,
                    peer,
                    number,
                    additional=further,
                    size_bits=asked.size_bits,
                    max_age_s=wishes.max_age_s,
                    accept=wishes.check,
                )
                taken = True
                return found

            try:
                keys = await self._on_store_for(pair, take)
            except StoreUnavailable:
                if taken:  # the request's group could not be committed
                    supply.give_back(caller, peer, number, further)
                raise
        else:
            named = etsi014.read_key_ids_query(query) if body is None else etsi014.read_key_ids(body, limits)
            facts, key_ids = named.facts, named.key_ids
            keys = await self._on_store_for(pair, lambda: supply.dec_keys(caller, peer, key_ids))
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s for %s with %s: %s", method, caller, peer, " ".join(key.key_id for key in keys))
        told = KeyFacts(supply.now(), supply.path) if facts else None
        return Answer(200, etsi014.container_document(keys, told))

    async def _on_store_for(self, pair: SaePair, call: Callable[[], _Result]) -> _Result:
        """Run ``call`` in the turn of the pair's store. Raises TooManyRequests for a caller that has many waiting."""
        caller = pair.local_sae, pair.link
        if self._queued[caller] >= MAX_WAITING_OF_ONE:
            raise TooManyRequests(f"{MAX_WAITING_OF_ONE} requests of this SAE wait already; try again later")
        self._queued[caller] += 1
        try:
            return await self.on_store(call, pair.link)
        finally:
            self._queued[caller] -= 1


@lru_cache(_PATHS_REMEMBERED)
def _route(path: str) -> tuple[str, str]:
    """Return the encoded SAE ID and the method of a raw path; two empty texts for one that leads nowhere."""
    parts = path.split("/")
    if len(parts) != len(PREFIX) + 2 or tuple(parts[:-2]) != PREFIX or parts[-1] not in VERBS:
        return "", ""
    return parts[-2], parts[-1]


async def serve(supply: Supply, host: str, port: int, tls: ssl.SSLContext) -> KmeServer:
    """Serve ``supply`` on ``host:port`` with the context of ``server_tls``. Raises ConfigurationError."""
    server = KmeServer(supply)
    await server.start(host, port, tls)
    return server
