"""An SAE's side of ETSI GS QKD 014 V1.1.1: fetches keys from its own site's KME, and believes only the standard."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from aiohttp import ClientRequest, ClientTimeout
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from heliograph.errors import (
    ConfigurationError,
    InsufficientKeys,
    KeyNotFound,
    KeySupplyError,
    NotPermitted,
)
from heliograph.http.diagnosis import explain
from heliograph.kme import etsi014, etsi014_consumer
from heliograph.kme.supply import SupplyStatus
from heliograph.types import DeliveredKey

__all__ = ["Etsi014Client"]

REQUEST_SECONDS = 30.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
# Shorter than the server's: an idle connection is dropped here first, so no request meets a closed one.
KEEPALIVE_SECONDS = 30.0


class Etsi014Client:
    """A ``KeySource`` over mutual TLS for one pair of SAEs; ``async with``, or ``close`` it.

    ``base_url``: ``https://host[:port]`` of the KME; ``tls``: from ``client_tls``; ``own_sae``: what the KME must take
    this client for, None to believe it; ``size_bits``: of every key. None: fresh keys have the size
    that the KME gives to whoever names none, which it is asked for once; keys that the peer names have any.
    Requests are POSTs, which no library repeats by itself: a repeated one would burn keys.
    Raises ConfigurationError for a URL that is not https.
    """

    def __init__(
        self,
        base_url: str,
        tls: ssl.SSLContext,
        own_sae: str | None,
        peer_sae: str,
        *,
        size_bits: int | None = 256,
    ) -> None:
        try:
            url = URL(base_url)
        except ValueError:
            url = URL()
        if url.scheme != "https" or not url.host:
            raise ConfigurationError(
                f"KME address {base_url!r}: must be https://host[:port]; keys never cross a network without TLS"
            )
        self._keys = f"{base_url.rstrip('/')}/api/v1/keys/{quote(peer_sae, safe='')}"
        self._tls = tls
        self._socket: Path | None = None
        self._own_sae = own_sae
        self._size_bits = size_bits
        self._usual_bits: int | None = None
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def over_socket(cls, path: str | Path, own_sae: str | None, peer_sae: str, *, size_bits: int | None = 256) -> Self:
        """Return a client of the KME on this host that listens on a Unix socket; nothing crosses a network.

        The system tells the KME which user asks; the KME is told from the socket's directory, in which only its owner
        can put one (checked at each connection).
        """
        client = cls(
            "https://localhost", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), own_sae, peer_sae, size_bits=size_bits
        )
        client._keys = client._keys.replace("https:", "http:", 1)
        client._socket = Path(path)
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def renew(self, tls: ssl.SSLContext) -> None:
        """Use ``tls`` from the next request on; one under way is answered as it began."""
        self._tls = tls

    async def status(self) -> SupplyStatus:
        """Ask how many keys are stored for the pair. Raises NotPermitted or KeySupplyError."""
        status = etsi014_consumer.read_status(await self._ask("status", None))
        if self._own_sae is not None and status.caller_sae != self._own_sae:
            raise KeySupplyError(
                f"the KME takes this client for SAE {status.caller_sae!r}, not {self._own_sae!r}; check its certificate"
            )
        return status

    async def get_key(self) -> DeliveredKey:
        """Fetch one fresh key as master. Raises InsufficientKeys, NotPermitted or KeySupplyError."""
        return (await self.get_keys(1))[0]

    async def get_keys(self, number: int, mandatory: Mapping[str, object] | None = None) -> list[DeliveredKey]:
        """Fetch ``number`` fresh keys as master, in one request. Raises as ``get_key``.

        ``mandatory``: what the keys must be (6.2), or none is handed out.
        """
        size = await self._size()
        answer = await self._ask("enc_keys", etsi014_consumer.key_request_document(number, size, mandatory))
        return etsi014_consumer.read_container(answer, number, size)

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        """Fetch the key that the peer named, as slave. Raises KeyNotFound, NotPermitted or KeySupplyError."""
        return (await self.get_keys_with_ids([key_id]))[0]

    async def get_keys_with_ids(self, key_ids: Sequence[str]) -> list[DeliveredKey]:
        """Fetch the keys that the peer named, in that order, all or none. Raises as ``get_key_with_id``."""
        answer = await self._ask("dec_keys", etsi014_consumer.key_ids_document(key_ids))
        # The master chose the size, of those that the pair has; whoever expects one has said so.
        keys = {key.key_id: key for key in etsi014_consumer.read_container(answer, len(key_ids), self._size_bits)}
        try:
            return [keys[key_id.lower()] for key_id in key_ids]
        except KeyError:
            raise KeySupplyError("the KME answered with a key of another key_ID") from None

    async def _size(self) -> int:
        if self._size_bits is not None:
            return self._size_bits
        if self._usual_bits is None:
            self._usual_bits = (await self.status()).key_size_bits
        return self._usual_bits

    async def _ask(self, method: str, body: bytes | None) -> bytes:
        try:
            status, answer = await self._exchange(method, body)
        except (aiohttp.ClientError, ssl.SSLError, OSError, TimeoutError) as error:
            raise KeySupplyError(f"{self._place}: {explain(error)}") from None
        if status == 200:
            return answer
        raise _refusal(method, status, etsi014_consumer.read_error(answer))

    async def _exchange(self, method: str, body: bytes | None) -> tuple[int, bytes]:
        async with self._opened().request(
            "GET" if body is None else "POST",
            URL(f"{self._keys}/{method}", encoded=True),
            data=body,
            headers={"Content-Type": "application/json"} if body is not None else None,
            allow_redirects=False,
            ssl=self._tls,  # with each request, so that ``renew`` holds from the next connection on
        ) as response:
            answer = bytearray()
            async for piece in response.content.iter_any():
                answer += piece
                if len(answer) > MAX_ANSWER_BYTES:
                    raise KeySupplyError(f"{self._place}: the answer exceeds {MAX_ANSWER_BYTES} bytes")
            return response.status, bytes(answer)

    @property
    def _place(self) -> str:
        if self._socket is not None:
            return f"KME socket {self._socket}"
        return f"KME {URL(self._keys, encoded=True).origin()}"

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Made here and not in the constructor: it belongs to the running loop.
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
                auto_decompress=False,
            )
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if self._socket is None:
            return aiohttp.TCPConnector(keepalive_timeout=KEEPALIVE_SECONDS)
        return _OwnedUnixConnector(self._socket)


class _OwnedUnixConnector(aiohttp.UnixConnector):
    """Connects to a socket that only root, this user or the socket's own user can have put there."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), keepalive_timeout=KEEPALIVE_SECONDS)
        self._place = path

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:  # noqa: ASYNC109  - aiohttp's signature
        found, place = self._place.stat(), self._place.parent.stat()
        trusted = {0, os.geteuid(), found.st_uid}
        if place.st_uid not in trusted or place.st_mode & 0o022:
            raise PermissionError(f"others can write in {self._place.parent}: the socket may not be the KME's")
        return await super().connect(req, traces, timeout)


def _refusal(method: str, status: int, message: str) -> KeySupplyError:
    if status == 401:
        return NotPermitted(
            f"the KME refuses this SAE: {message}; use the certificate (or the Unix user) of an SAE that is registered "
            "there, and only key_IDs that were allocated to it"
        )
    if status == 503 and method == "enc_keys":
        return InsufficientKeys(f"the KME has no key now: {message}; the link has to make more first")
    if status == 400 and method == "dec_keys" and message == etsi014.MESSAGE_NOT_FOUND:
        return KeyNotFound(
            f"the KME does not have that key: {message}; a key is delivered once, have the master fetch a fresh one"
        )
    remedy = "; correct what is asked for: its status shows what it serves" if status == 400 else "; its log says why"
    return KeySupplyError(f"the KME answered {status}: {message}{remedy}")
