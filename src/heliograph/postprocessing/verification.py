"""Verification: one 2-universal hash shows that both sides hold the same bits. Only this module makes a VerifiedBlock.

The hash is Poly1305 [Bernstein 2005] over (bit length as 8 bytes, little endian || packed bits) under a fresh, uniform
and public seed, drawn and sent only after the last reconciliation message (security.md 5). Nothing is secret about the
seed: what counts is that it is independent of both strings. Its 128 bits cross the channel and are all charged.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.hazmat.primitives.poly1305 import Poly1305

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, RemoteProtocolError, VerificationFailed
from heliograph.types import Disclosed, ReconciledBlock, VerifiedBlock

__all__ = ["SEED_BYTES", "TAG_BITS", "accept_verified", "collision_bound", "verification_tag", "verify"]

# From the security proof.
SEED_BYTES: Final = 32
TAG_BITS: Final = 128
_LENGTH_BYTES: Final = 8


def collision_bound(length_bits: int) -> float:
    """Return the greatest probability that two different strings of ``length_bits`` bits have equal tags.

    8 * ceil(L / 16) / 2^106 for L bytes hashed, the length field included [Bernstein 2005]. It must not
    exceed eps_cor.
    """
    hashed = _LENGTH_BYTES + (length_bits + 7) // 8
    return float(8 * ((hashed + 15) // 16)) / 2.0**106


def verification_tag(bits: BitString, seed: bytes) -> bytes:
    """Return the 16-byte tag of ``bits`` under a 32-byte seed that is used for this one block and nothing else."""
    if len(seed) != SEED_BYTES:
        raise LocalProtocolError(f"a verification seed has {SEED_BYTES} bytes, not {len(seed)}")
    return Poly1305.generate_tag(seed, len(bits).to_bytes(_LENGTH_BYTES, "little") + bits.to_bytes())


def verify(block: ReconciledBlock, seed: bytes, tag: bytes) -> VerifiedBlock:
    """Compare the peer's tag with ours: the receiver's side, which has corrected its bits.

    Raises VerificationFailed if they differ, RemoteProtocolError for a seed or tag of the wrong size.
    """
    if len(seed) != SEED_BYTES or len(tag) != TAG_BITS // 8:
        raise RemoteProtocolError(f"a verification seed of {len(seed)} bytes and a tag of {len(tag)} bytes came")
    if not hmac.compare_digest(verification_tag(block.bits, seed), tag):
        raise VerificationFailed("the keys differ after reconciliation: the verification hashes are not equal")
    return _verified(block)


def accept_verified(block: ReconciledBlock) -> VerifiedBlock:
    """Take the peer's word that our tag matched its bits: the transmitter's side, after the peer's ``Verified``.

    That word is covered by the tag over the transcript, which both sides check before a key leaves the block
    (security.md 1).
    """
    return _verified(block)


def _verified(block: ReconciledBlock) -> VerifiedBlock:
    return VerifiedBlock(
        bits=block.bits,
        test=block.test,
        key=block.key,
        disclosed=block.disclosed + Disclosed(verification=TAG_BITS),
    )
