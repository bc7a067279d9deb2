"""AES-GMAC with a 256-bit key (NIST SP 800-38D): for sites whose rules name it; computational.

The nonce is fixed, which is fatal for GCM in general: two messages under one (key, nonce) give away H = AES_K(0), and
with it every later tag. Here the key itself is used once. A pad is burnt before its only tag exists, the peer computes
tags under it only to compare them, and so no (key, nonce) pair ever yields two tags. What a forger can see is one
polynomial hash under H, masked once by AES_K(nonce): Wegman-Carter with AES in the place of two uniform strings.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

from heliograph.authentication.mac import PAD_BYTES
from heliograph.authentication.methods.interface import Assurance, refuse_other_key_sizes, refuse_unless_equal

__all__ = ["AesGmac"]

_NONCE = bytes(12)  # 96 bits: SP 800-38D 5.2.1.1


class AesGmac:
    """GCM over no plaintext; the message is the additional data."""

    name = "aes-gmac"
    key_bytes = PAD_BYTES
    tag_bytes = 16
    assurance: Assurance = "computational"

    def tag(self, key: bytes, covered: Iterable[bytes]) -> bytes:
        """Return the 16-byte tag."""
        refuse_other_key_sizes(self, key)
        gcm = Cipher(AES256(key), GCM(_NONCE)).encryptor()
        for part in covered:
            gcm.authenticate_additional_data(part)
        gcm.finalize()
        return gcm.tag

    def check(self, key: bytes, covered: Iterable[bytes], tag: bytes) -> None:
        """Accept or raise AuthenticationFailed."""
        refuse_unless_equal(self.tag(key, covered), tag)

    def forgery_bound(self, length_bytes: int, attempts: int = 1) -> None:
        """Return None: AES stands where the proof wants uniform strings."""
        del length_bytes, attempts
