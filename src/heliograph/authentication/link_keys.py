"""The link's own keys for everything that is not a one-time tag, cut from the block that ends a bootstrap.

    | resynchronisation 32 | pre-filter to the receiver 32 | pre-filter to the transmitter 32 | chain 32 |

Their generation is the number of the block they were cut from; generation 0 is the bootstrap itself. Two sites hold
one generation more for as long as the peer might not have it yet (``LinkRecords``).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from heliograph.errors import LocalProtocolError

__all__ = ["LINK_KEYS_BITS", "LINK_KEYS_BYTES", "LinkKeys", "chain_value", "split_link_keys"]

_KEY_BYTES: Final = 32
LINK_KEYS_BYTES: Final = 4 * _KEY_BYTES
LINK_KEYS_BITS: Final = 8 * LINK_KEYS_BYTES


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """One generation."""

    generation: int
    resync_key: bytes = field(repr=False)
    filter_to_receiver: bytes = field(repr=False)
    filter_to_transmitter: bytes = field(repr=False)
    chain_key: bytes = field(repr=False)


def split_link_keys(generation: int, material: bytes) -> LinkKeys:
    """Cut 128 secret bytes of block ``generation``."""
    if len(material) != LINK_KEYS_BYTES:
        raise LocalProtocolError(f"a link's keys have {LINK_KEYS_BYTES} bytes, not {len(material)}")
    parts = (material[i : i + _KEY_BYTES] for i in range(0, LINK_KEYS_BYTES, _KEY_BYTES))
    return LinkKeys(generation, *parts)


def chain_value(keys: LinkKeys, identity: bytes, epoch: int, context: bytes, transcript_sha256: str) -> str:
    """Return the 128 bits, in hexadecimal, by which two people find a man in the middle of the bootstrap.

    He holds two links, so two secrets that no choice of his makes equal: the value is HMAC-SHA-256 under 256 secret
    bits that are used for nothing else, over everything public that the block rests on. At 128 bits a value cannot be
    ground to match (security.md 7). Computational: it is compared by people, never believed by the link.
    """
    mac = hmac.new(keys.chain_key, b"heliograph/1 chain", hashlib.sha256)
    for part in (identity, epoch.to_bytes(4, "big"), context, transcript_sha256.encode("ascii")):
        mac.update(len(part).to_bytes(4, "big") + part)
    return mac.hexdigest()[:32]
