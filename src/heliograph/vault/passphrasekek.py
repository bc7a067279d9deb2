"""A key-encryption key wrapped under a passphrase: nothing on the disk opens the store by itself."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from heliograph.errors import ConfigurationError
from heliograph.ports import RandomSource
from heliograph.vault.sealing import KEK_BYTES, NONCE_BYTES, OpenKek, read_wrapped, write_wrapped

__all__ = ["PASSPHRASE_CHARS_MIN", "Argon2Cost", "PassphraseKek"]

FORM = "heliograph/1 kek passphrase"
PASSPHRASE_CHARS_MIN = 12  # our choice; the file can be attacked at leisure by whoever copies it
SALT_BYTES = 16  # RFC 9106 section 4: 128 bits


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """Costs of one derivation. The default is four times the memory of RFC 9106's second recommended option."""

    memory_kib: int = 256 * 1024
    iterations: int = 3
    lanes: int = 4


# RFC 9106 section 4, second recommended option: nothing below it is taken from a file. The upper ends are our choice.
_FLOOR, _CEILING = Argon2Cost(64 * 1024, 3, 1), Argon2Cost(4 * 1024 * 1024, 64, 64)


class _Wrapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    memory_kib: int
    iterations: int
    lanes: int
    salt: str
    nonce: str
    sealed: str


class PassphraseKek(OpenKek):
    """The key that ``passphrase`` opens in the file ``path``.

    The file holds salt and costs of Argon2id (RFC 9106) beside the wrapped key; the wrapping authenticates them.
    Raises ConfigurationError in one line for a wrong passphrase and for a file that is no such key.
    """

    def __init__(self, path: Path, passphrase: bytes, randomness: RandomSource) -> None:
        fields = read_wrapped(path, FORM, "passphrase")
        try:
            wrapped = msgspec.convert(fields, _Wrapped)
            salt, nonce, sealed = (bytes.fromhex(text) for text in (wrapped.salt, wrapped.nonce, wrapped.sealed))
            cost = Argon2Cost(wrapped.memory_kib, wrapped.iterations, wrapped.lanes)
            sound = len(salt) == SALT_BYTES and len(nonce) == NONCE_BYTES and _within(cost)
        except ValueError:  # msgspec's errors are of this kind
            sound = False
        if not sound:
            raise ConfigurationError(f"kek {path}: damaged, or its costs are out of range; restore the file")
        try:
            key = AESGCMSIV(_derive(passphrase, salt, cost)).decrypt(nonce, sealed, _bound(salt, cost))
        except InvalidTag:
            raise ConfigurationError(f"kek {path}: wrong passphrase, or the file was altered; try again") from None
        super().__init__("passphrase", key, randomness)

    @classmethod
    def create(
        cls, path: Path, passphrase: bytes, randomness: RandomSource, cost: Argon2Cost | None = None
    ) -> PassphraseKek:
        """Wrap a fresh key and write it with mode 0600; an existing file is never replaced."""
        cost = cost or Argon2Cost()
        if not _within(cost):
            raise ConfigurationError(f"kek {path}: Argon2id with {cost}: at least {_FLOOR}, at most {_CEILING}")
        if len(_normal(passphrase).decode()) < PASSPHRASE_CHARS_MIN:
            raise ConfigurationError(f"passphrase: at least {PASSPHRASE_CHARS_MIN} characters; take a longer one")
        salt, nonce = randomness.draw(SALT_BYTES), randomness.draw(NONCE_BYTES)
        sealed = AESGCMSIV(_derive(passphrase, salt, cost)).encrypt(
            nonce, randomness.draw(KEK_BYTES), _bound(salt, cost)
        )
        wrapped = _Wrapped(cost.memory_kib, cost.iterations, cost.lanes, salt.hex(), nonce.hex(), sealed.hex())
        write_wrapped(path, FORM, msgspec.to_builtins(wrapped))
        return cls(path, passphrase, randomness)


def _within(cost: Argon2Cost) -> bool:
    return (
        _FLOOR.memory_kib <= cost.memory_kib <= _CEILING.memory_kib
        and _FLOOR.iterations <= cost.iterations <= _CEILING.iterations
        and _FLOOR.lanes <= cost.lanes <= _CEILING.lanes
    )


def _normal(passphrase: bytes) -> bytes:
    # RFC 8265 section 4.2.2: NFC, so that the same passphrase typed on another keyboard is the same bytes.
    try:
        return unicodedata.normalize("NFC", passphrase.decode()).encode()
    except UnicodeDecodeError:
        raise ConfigurationError("passphrase: not UTF-8; type it in a UTF-8 terminal or correct the file") from None


def _derive(passphrase: bytes, salt: bytes, cost: Argon2Cost) -> bytes:
    kdf = Argon2id(
        salt=salt, length=KEK_BYTES, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    )
    return kdf.derive(_normal(passphrase))


def _bound(salt: bytes, cost: Argon2Cost) -> bytes:
    return FORM.encode() + b" %d %d %d " % (cost.memory_kib, cost.iterations, cost.lanes) + salt
