"""The default: Wegman-Carter over Poly1305, whose bound assumes nothing about a forger's computing power."""

from __future__ import annotations

from collections.abc import Iterable

from heliograph.authentication.mac import PAD_BYTES, TAG_BYTES, Pad, check_tag, forgery_bound, make_tag
from heliograph.authentication.methods.interface import Assurance

__all__ = ["WegmanCarterPoly1305"]


class WegmanCarterPoly1305:
    """``authentication.mac`` behind the common interface: fresh r and fresh s for every message."""

    name = "wegman-carter-poly1305"
    key_bytes = PAD_BYTES
    tag_bytes = TAG_BYTES
    assurance: Assurance = "information-theoretic"

    def tag(self, key: bytes, covered: Iterable[bytes]) -> bytes:
        """Return the 16-byte tag."""
        return make_tag(Pad(key), covered)

    def check(self, key: bytes, covered: Iterable[bytes], tag: bytes) -> None:
        """Accept or raise AuthenticationFailed."""
        check_tag(Pad(key), covered, tag)

    def forgery_bound(self, length_bytes: int, attempts: int = 1) -> float:
        """Return attempts * 8 * ceil(length / 16) / 2^106 (theory.md 1.9)."""
        return forgery_bound(length_bytes, attempts)
