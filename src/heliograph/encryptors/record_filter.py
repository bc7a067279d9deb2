"""The pre-filter of one-time pad records: junk is dropped before it costs an attempt on the pad.

A record that fails its one-time tag counts against the pad, and after so many the pad is given up (``ciphers``); so
whoever reaches the port could stop it. Each body therefore ends with HMAC-SHA-256, cut to 128 bits, over header and
body under a key used for nothing else. Passing grants nothing; whoever breaks it gains denial of service only.
"""

from __future__ import annotations

import hmac
from typing import Final

from heliograph.encryptors.ciphers import Opener, Sealer
from heliograph.errors import RemoteProtocolError

__all__ = ["FILTER_TAG_BYTES", "FilteredOpener", "FilteredSealer", "filter_key"]

FILTER_TAG_BYTES: Final = 16
_LABEL: Final = b"heliograph/1 record filter"


def filter_key(confirmation_key: bytes, sender: int) -> bytes:
    """Return the key for what one site sends; the confirmation key is a key of the link outside the pad."""
    return hmac.digest(confirmation_key, _LABEL + bytes([sender]), "sha256")


def _tag(key: bytes, header: bytes, body: bytes) -> bytes:
    return hmac.digest(key, header + body, "sha256")[:FILTER_TAG_BYTES]  # the header has one length


class FilteredSealer:
    """A sealer whose bodies carry the filter's tag."""

    def __init__(self, inner: Sealer, key: bytes) -> None:
        self._inner = inner
        self._key = key
        self.overhead = inner.overhead + FILTER_TAG_BYTES

    def seal(self, nonce: bytes, payload: bytes, header: bytes) -> bytes:
        """Return the body. Raises KeySupplyError if there is no key material left for it."""
        body = self._inner.seal(nonce, payload, header)
        return body + _tag(self._key, header, body)

    def room(self, size: int) -> bool:
        """Whether a data record of ``size`` bytes fits."""
        return self._inner.room(size)

    @property
    def half_used(self) -> bool:
        """Whether half of what the cipher has is used."""
        return self._inner.half_used

    @property
    def left(self) -> int | None:
        """Bytes of pad that are left."""
        return self._inner.left


class FilteredOpener:
    """An opener that sees only what passed the filter."""

    def __init__(self, inner: Opener, key: bytes) -> None:
        self._inner = inner
        self._key = key

    def open(self, nonce: bytes, body: bytes, header: bytes) -> bytes:
        """Return the payload. Raises InvalidTag, RemoteProtocolError; for junk, nothing has changed."""
        body, tag = body[:-FILTER_TAG_BYTES], body[-FILTER_TAG_BYTES:]
        if not hmac.compare_digest(_tag(self._key, header, body), tag):
            raise RemoteProtocolError("a record was dropped by the pre-filter: forged or damaged; the pad is untouched")
        return self._inner.open(nonce, body, header)

    @property
    def half_used(self) -> bool:
        """Whether half of what the cipher has is used."""
        return self._inner.half_used
