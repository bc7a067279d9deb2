"""The KME's door for encryptors that speak SKIP (draft-cisco-skip-02): GET over TLS 1.3, every answer JSON."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import ClassVar

from aiohttp import web

from heliograph.errors import HeliographError, InsufficientKeys, KeyNotFound, NotPermitted
from heliograph.http.callers import Callers, CertificateCallers, Connected, may_call
from heliograph.http.json_http import Answer, JsonHttpServer, Overloaded, read_body
from heliograph.kme import skip
from heliograph.kme.boundary import Network
from heliograph.kme.supply import RequestRefused, Supply
from heliograph.ports import RandomSource

__all__ = ["SkipServer"]

RETRY_AFTER = MappingProxyType({"Retry-After": "1"})

_log = logging.getLogger("heliograph.kme")


class SkipServer(JsonHttpServer):
    """A listening key provider. ``randomness``: what /entropy gives away; never a source of key bits."""

    what: ClassVar[str] = "SKIP"

    def __init__(
        self,
        supply: Supply,
        systems: skip.SkipSystems,
        randomness: RandomSource,
        callers: Callers | None = None,
        networks: tuple[Network, ...] = (),
    ) -> None:
        super().__init__(networks)
        self._supply = supply
        self._systems = systems
        self._randomness = randomness
        self._callers = callers or CertificateCallers()

    def admit(self, systems: skip.SkipSystems, callers: Callers, networks: tuple[Network, ...]) -> None:
        """Let these in from now on and nobody else, to these systems; a connection of somebody else ends at once."""
        self._systems, self._callers = systems, callers
        self.admit_from(networks, lambda connection: self._supply.serves(may_call(callers, connection) or ""))

    def caller_of(self, connection: Connected) -> str:
        """Return the SAE ID behind a connection, "" if it is not registered here."""
        sae = may_call(self._callers, connection)
        return sae if sae is not None and self._supply.serves(sae) else ""

    def refusal(self, error: HeliographError) -> Answer:
        """Return the draft's status for a refusal."""
        status, body = skip.error_answer(error)
        if isinstance(error, Overloaded):
            status = 503
        return Answer(status, body, RETRY_AFTER if status == 503 else {})

    def plain_refusal(self, status: int, text: str) -> Answer:
        """Return an error; what cannot be said otherwise is a 500 here."""
        return Answer(500 if status == 503 else status, skip.error_document(text))

    async def serve_request(self, request: web.BaseRequest) -> Answer:
        """Answer one request."""
        # (1) Who is calling: counted, whatever it asks for.
        caller = await self.let_in(lambda: self._callers.identify(request), self._supply)
        # (2) Route: 404 for an unknown path, 405 for anything but GET.
        parts = request.rel_url.raw_path.split("/")[1:]
        if request.rel_url.raw_path[:1] != "/" or not (
            parts in (["capabilities"], ["key"], ["entropy"]) or (len(parts) == 2 and parts[0] == "key" and parts[1])
        ):
            return Answer(404, skip.error_document("no such resource: /capabilities, /key, /key/{keyId}, /entropy"))
        if request.method != "GET":
            return Answer(405, skip.error_document("only GET is served"), {"Allow": "GET"})
        # (3) What is asked for.
        if await read_body(request):
            raise RequestRefused("a GET request has no body")
        query = request.rel_url.raw_query_string
        if parts == ["capabilities"]:
            skip.read_capabilities_query(query)
            visible = self._systems.visible(self._supply, caller)
            return Answer(200, skip.capabilities_document(self._systems.local, visible))
        if parts == ["entropy"]:
            self._systems.visible(self._supply, caller)
            bits = skip.read_entropy_query(query)
            return Answer(200, skip.entropy_document(self._randomness.draw((bits + 7) // 8)))
        try:
            return await self._key(caller, parts[1:], query)
        except InsufficientKeys:
            await self.rest(caller)
            raise

    async def _key(self, caller: str, key_id: list[str], query: str) -> Answer:
        supply = self._supply
        # (4) The store, with the key gone from it before it is answered: the draft's zeroisation.
        if key_id:
            named, remote = skip.read_key_by_id(key_id[0], query)
            peer = self._systems.resolve(supply, caller, remote)
            link = supply.authorise(caller, peer).link  # a store that hangs holds up no pair of another link
            try:
                (key,) = await self.on_store(lambda: supply.dec_keys(caller, peer, [named]), link)
            except NotPermitted:
                # The draft knows no "not yours": another SAE's key is like one that is not there.
                raise KeyNotFound("the key was allocated to another SAE") from None
        else:
            remote, size = skip.read_key_query(query)
            peer = self._systems.resolve(supply, caller, remote)
            link = supply.authorise(caller, peer).link
            (key,) = await self.on_store(lambda: supply.enc_keys(caller, peer, 1, size_bits=size), link)
        _log.info("SKIP key for %s with %s: %s", caller, peer, key.key_id)
        return Answer(200, skip.key_document(key))
