"""HMAC with SHA-256 or SHA-384 (RFC 2104, FIPS 198-1): for sites whose rules name it; computational."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Literal

from heliograph.authentication.mac import PAD_BYTES
from heliograph.authentication.methods.interface import Assurance, refuse_other_key_sizes, refuse_unless_equal

__all__ = ["HmacSha2"]


class HmacSha2:
    """The whole digest is the tag: 32 or 48 bytes. The key stays 256 bits, and so does the strength against search."""

    key_bytes = PAD_BYTES
    assurance: Assurance = "computational"

    def __init__(self, digest_bits: Literal[256, 384]) -> None:
        self.name = f"hmac-sha-{digest_bits}"
        self.tag_bytes = digest_bits // 8
        self._digest = f"sha{digest_bits}"

    def tag(self, key: bytes, covered: Iterable[bytes]) -> bytes:
        """Return the digest, whole."""
        refuse_other_key_sizes(self, key)
        mac = hmac.new(key, digestmod=getattr(hashlib, self._digest))
        for part in covered:
            mac.update(part)
        return mac.digest()

    def check(self, key: bytes, covered: Iterable[bytes], tag: bytes) -> None:
        """Accept or raise AuthenticationFailed."""
        refuse_unless_equal(self.tag(key, covered), tag)

    def forgery_bound(self, length_bytes: int, attempts: int = 1) -> None:
        """Return None: the strength of HMAC is assumed, not proved."""
        del length_bytes, attempts
