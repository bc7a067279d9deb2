"""Calls to other key managers of the same protected site (ETSI GS QKD 020): one POST, one answer, or none in time."""

from __future__ import annotations

import ssl

import aiohttp
from yarl import URL

__all__ = ["Etsi020Client"]

REQUEST_SECONDS = 10.0  # our choice
MAX_ANSWER_BYTES = 1024 * 1024


class Etsi020Client:
    """``tls``: from ``tls13_client_tls``, which names the one KME that may answer. ``close`` it."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    def renew(self, tls: ssl.SSLContext) -> None:
        """Use ``tls`` for every connection from now on."""
        self._tls = tls

    @property
    def tls(self) -> ssl.SSLContext:
        """What the next connection uses."""
        return self._tls

    async def post(self, url: str, body: bytes) -> tuple[int | None, bytes]:
        """Return status and body of the answer; (None, b"") when there was none, which proves nothing.

        Redirects are not followed: they would carry keys to a place that nobody declared.
        """
        try:
            async with self._opened().post(
                URL(url),
                data=body,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                ssl=self._tls,  # with each request, so that ``renew`` holds from the next connection on
            ) as response:
                answer = await response.content.read(MAX_ANSWER_BYTES + 1)
                while len(answer) <= MAX_ANSWER_BYTES and (more := await response.content.read(MAX_ANSWER_BYTES)):
                    answer += more
                return response.status, answer if len(answer) <= MAX_ANSWER_BYTES else b""
        except (aiohttp.ClientError, ssl.SSLError, OSError, TimeoutError, ValueError):
            return None, b""

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
                auto_decompress=False,
            )
        return self._session
