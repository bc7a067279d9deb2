"""What every key-encryption key does once it is open, wherever it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.ports import RandomSource
from heliograph.vault.owned_file import create_file, read_owned

__all__ = ["KEK_BYTES", "NONCE_BYTES", "OpenKek", "read_wrapped", "write_wrapped"]

KEK_BYTES = 32
NONCE_BYTES = 12
FORMAT = b"\x01"
_WRAPPED_BYTES_MAX = 4096  # our choice: ten times what one takes


class OpenKek:
    """Seals secrets with AES-256-GCM-SIV (RFC 8452) under 32 bytes.

    GCM-SIV and not GCM: after a restored backup or a cloned machine a nonce may come twice (security.md 4), and a
    repeated nonce then shows only whether two secrets were equal. A sealed secret is a format byte, a nonce of
    96 bits, the ciphertext and a tag of 128 bits; the context is authenticated.

    ``kind``: what protects the key at rest, for reports: "file", "passphrase" or "pkcs11".
    """

    def __init__(self, kind: str, key: bytes, randomness: RandomSource) -> None:
        self.kind = kind
        self._randomness = randomness
        self._cipher = AESGCMSIV(key)

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


def write_wrapped(path: Path, form: str, fields: Mapping[str, object]) -> None:
    """Write a wrapped key of the form ``form``: one line of JSON, mode 0600, never over an existing file."""
    create_file(path, msgspec.json.encode({"format": form, **fields}) + b"\n", "kek")


def read_wrapped(path: Path, form: str, kind: str) -> dict[str, object]:
    """Return the fields of a wrapped key. Raises ConfigurationError if it is none of that form."""
    data = read_owned(path, _WRAPPED_BYTES_MAX, "kek")
    try:
        fields = msgspec.json.decode(data, type=dict[str, object])
    except msgspec.MsgspecError:
        fields = {}
    if fields.pop("format", None) != form:
        raise ConfigurationError(
            f'kek {path}: holds no key of [seal] kind = "{kind}"; restore the file, or correct the kind in SITE.toml'
        )
    return fields
