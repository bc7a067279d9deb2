"""The Wegman-Carter tag: Poly1305 under a key that is fresh, uniform and used for one byte string.

With a one-time key (r, s), r clamped to 106 free bits, Poly1305 is an almost-delta-universal hash plus a one-time pad:
a forger who saw one tagged message of L bytes succeeds with probability at most 8 * ceil(L/16) / 2^106 for each attempt
(Bernstein 2005, Theorem 3.3; RFC 8439 2.5). This bound assumes nothing about the forger's computing power.
The tag is taken over the message itself, never over a digest of it (security.md 2; Pacher et al. 2016).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.poly1305 import Poly1305

from heliograph.errors import AuthenticationFailed, LocalProtocolError

__all__ = ["PAD_BYTES", "TAG_BYTES", "Pad", "check_tag", "forgery_bound", "make_tag"]

# From the construction (RFC 8439 2.5): r and s are 128 bits each; the tag is never truncated.
PAD_BYTES = 32
TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Pad:
    """256 secret bits for one tag. Never printed; made only by the pad store, at its address."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != PAD_BYTES:
            raise LocalProtocolError(f"a pad has {PAD_BYTES} bytes, not {len(self.key)}")


def make_tag(pad: Pad, covered: Iterable[bytes]) -> bytes:
    """Return the 16-byte tag over the concatenation of ``covered``; the caller frames the parts injectively."""
    mac = Poly1305(pad.key)
    for part in covered:
        mac.update(part)
    return mac.finalize()


def check_tag(pad: Pad, covered: Iterable[bytes], tag: bytes) -> None:
    """Compare in constant time. Raises AuthenticationFailed; success returns nothing, so nothing can be ignored."""
    if not hmac.compare_digest(make_tag(pad, covered), tag):
        raise AuthenticationFailed("the tag does not match: the message was damaged or forged")


def forgery_bound(length_bytes: int, attempts: int = 1) -> float:
    """Return the bound on the probability that one of ``attempts`` forgeries of ``length_bytes`` is accepted."""
    return attempts * 8 * max(1, -(-length_bytes // 16)) / 2**106
