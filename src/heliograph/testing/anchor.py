"""What a site's trust starts from, in memory: it outlives its site's restarts, and a test may turn it back."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from heliograph.authentication.anchors.psk import (
    BookHeader,
    EpochSecrets,
    SlotUsed,
    parse_header,
    slot_range,
    slot_secrets,
)
from heliograph.errors import AnchorRefused, AuthenticationFailed

__all__ = ["KnownKey", "MemoryAnchor", "MemoryBook", "SeededSigner"]


class MemoryAnchor:
    """Implements ``ports.Anchor``. ``mark`` is the highest (epoch, block) ever marked."""

    def __init__(self, mark: tuple[int, int] = (0, 0)) -> None:
        self.mark = mark

    def read(self) -> tuple[int, int]:
        """Return the highest mark."""
        return self.mark

    def advance(self, epoch: int, block: int) -> None:
        """Take a mark; a lower one changes nothing."""
        self.mark = max(self.mark, (epoch, block))


class MemoryBook:
    """Implements ``KeyBook`` over a book in memory."""

    def __init__(self, book: bytearray) -> None:
        self._book = book

    def header(self) -> BookHeader:
        """Return the part that is not used up."""
        return parse_header(bytes(self._book))

    def burn_slot(self, epoch: int) -> EpochSecrets:
        """Erase the slot of ``epoch``, then return it."""
        start, stop = slot_range(epoch - 1)
        if not any(self._book[start:stop]):
            raise SlotUsed(f"the slot of epoch {epoch} was used before")
        secrets = slot_secrets(bytes(self._book[start:stop]))
        first, _ = slot_range(0)
        self._book[first:stop] = bytes(stop - first)
        return secrets


class SeededSigner:
    """Implements ``ports.Signer`` by Ed25519 under a key made from a number: the same number, the same signatures."""

    algorithm = "ed25519"

    def __init__(self, seed: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"signer %d" % seed).digest())
        self.credential = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes."""
        return self._key.sign(message)


class _Key:
    algorithm = "ed25519"

    def __init__(self, credential: bytes) -> None:
        self.fingerprint = hashlib.sha256(credential).hexdigest()
        try:
            self._key = Ed25519PublicKey.from_public_bytes(credential)
        except ValueError:
            raise AnchorRefused("malformed", "not an Ed25519 public key") from None

    def verify(self, message: bytes, signature: bytes) -> None:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise AuthenticationFailed("the signature is not good") from None


class KnownKey:
    """Implements ``ports.PeerTrust``: exactly one public key speaks for the peer."""

    def __init__(self, credential: bytes) -> None:
        self.credential = credential

    def accept(self, credential: bytes, now: float) -> _Key:  # noqa: ARG002  - it is valid for ever
        """Return the key. Raises AnchorRefused for any other."""
        if credential != self.credential:
            raise AnchorRefused("untrusted", "the peer's key is not the one that is known here")
        return _Key(credential)

    def recall(self, credential: bytes) -> _Key:
        """Return the key of a credential, whoever it speaks for."""
        return _Key(credential)
