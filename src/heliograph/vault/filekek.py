"""A key-encryption key in a file: for rehearsals and tests, and reported as such (``kek: file``)."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from heliograph.errors import StoreUnavailable
from heliograph.ports import RandomSource
from heliograph.vault.secretfile import create_secret, read_secret

__all__ = ["FileKek"]

KEK_BYTES = 32
NONCE_BYTES = 12
FORMAT = b"\x01"


class FileKek:
    """Seals secrets with AES-256-GCM-SIV (RFC 8452) under the 32 bytes of a file.

    GCM-SIV and not GCM: after a restored backup or a cloned machine a nonce may come twice (security.md 4), and a
    repeated nonce then shows only whether two secrets were equal. A sealed secret is a format byte, a nonce of
    96 bits, the ciphertext and a tag of 128 bits; the context is authenticated.

    Raises ConfigurationError if the file cannot be used as a key-encryption key.
    """

    kind = "file"

    def __init__(self, path: str | Path, randomness: RandomSource) -> None:
        self._randomness = randomness
        self._cipher = AESGCMSIV(read_secret(path, "kek", KEK_BYTES))

    @classmethod
    def create(cls, path: str | Path, randomness: RandomSource) -> FileKek:
        """Write a fresh key-encryption key with mode 0600; an existing file is never replaced."""
        create_secret(path, "kek", randomness.draw(KEK_BYTES))
        return cls(path, randomness)

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` encrypted and bound to ``context``."""
        nonce = self._randomness.draw(NONCE_BYTES)
        return FORMAT + nonce + self._cipher.encrypt(nonce, secret, FORMAT + context)

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Return the secret. Raises StoreUnavailable if it was altered, or sealed elsewhere or for another use."""
        if sealed[:1] != FORMAT or len(sealed) < 1 + NONCE_BYTES + 16:
            raise StoreUnavailable("a sealed secret has an unknown form; the store belongs to another release")
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, FORMAT + context)
        except InvalidTag:
            raise StoreUnavailable(
                "a sealed secret does not open: it was altered, or this is not the key-encryption key of this store"
            ) from None
