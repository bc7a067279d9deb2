"""A key-encryption key in a file: for rehearsals and tests, and reported as such (``kek: file``)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.ports import RandomSource

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
        self._cipher = AESGCMSIV(_read(Path(path)))

    @classmethod
    def create(cls, path: str | Path, randomness: RandomSource) -> FileKek:
        """Write a fresh key-encryption key with mode 0600; an existing file is never replaced."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise ConfigurationError(f"kek {path}: exists already; use it or name another file") from None
        except OSError as error:
            raise ConfigurationError(f"kek {path}: {error.strerror}; name a file this user can write") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(randomness.draw(KEK_BYTES))
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # without it a crash could lose the file and with it every stored key
        finally:
            os.close(directory)
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


def _read(path: Path) -> bytes:
    try:
        # Not blocking: a pipe under that name must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"kek {path}: {error.strerror}; create it or correct the path") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigurationError(f"kek {path}: not a plain file; name the file that holds the key")
        if facts.st_mode & 0o077:
            raise ConfigurationError(
                f"kek {path}: others can read it; run chmod 600 {path}, and replace it if they did"
            )
        if facts.st_uid != os.geteuid():
            raise ConfigurationError(f"kek {path}: belongs to another user; run chown to this user")
        secret = os.read(descriptor, KEK_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(secret) != KEK_BYTES:
        raise ConfigurationError(
            f"kek {path}: holds {facts.st_size} bytes, not {KEK_BYTES}; restore it or create it anew"
        )
    return secret
