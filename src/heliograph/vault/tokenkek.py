"""A key-encryption key wrapped by a PKCS#11 token, which never gives away the key that it wraps with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.ports import RandomSource
from heliograph.vault.sealing import KEK_BYTES, NONCE_BYTES, OpenKek, read_wrapped, write_wrapped

__all__ = ["Token", "TokenKek"]

FORM = "heliograph/1 kek pkcs11"
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Token:
    """Where the token is: ``module``, the vendor's shared library; ``label``, the token's own label."""

    module: Path
    label: str


class _Wrapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    nonce: str
    sealed: str


class TokenKek(OpenKek):
    """The key in the file ``path``, unwrapped by a token with AES-GCM (PKCS #11 v2.40, CKM_AES_GCM).

    The token's AES-256 key is made inside it, sensitive and not extractable. It encrypts once, so its nonce is never
    used again. The unwrapped key stays in this process's memory while the site runs. Raises ConfigurationError in one
    line for a token, a PIN or a file that cannot be used.
    """

    def __init__(self, path: Path, token: Token, pin: bytes, randomness: RandomSource) -> None:
        wrapped = _read(path)
        with _session(token, pin, writing=False) as session:
            secret = session.get_key(**_which(wrapped))
            key = secret.decrypt(bytes.fromhex(wrapped.sealed), **_gcm(wrapped.id, bytes.fromhex(wrapped.nonce)))
        if len(key) != KEK_BYTES:
            raise ConfigurationError(f"kek {path}: the token gave {len(key)} bytes, not {KEK_BYTES}; restore the file")
        super().__init__("pkcs11", key, randomness)

    @classmethod
    def create(cls, path: Path, token: Token, pin: bytes, randomness: RandomSource) -> TokenKek:
        """Make a wrapping key in the token and write the wrapped key with mode 0600; never over an existing file."""
        if path.exists():
            raise ConfigurationError(f"kek {path}: exists already; use it or name another file")
        identity, nonce = randomness.draw(ID_BYTES), randomness.draw(NONCE_BYTES)
        with _session(token, pin, writing=True) as session:
            import pkcs11  # noqa: PLC0415  - an extra

            secret = session.generate_key(
                pkcs11.KeyType.AES,
                256,
                id=identity,
                label="heliograph kek",
                store=True,
                capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
                template={pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.SENSITIVE: True},
            )
            sealed = secret.encrypt(randomness.draw(KEK_BYTES), **_gcm(identity.hex(), nonce))
        wrapped = _Wrapped(identity.hex(), nonce.hex(), sealed.hex())
        write_wrapped(path, FORM, msgspec.to_builtins(wrapped))
        return cls(path, token, pin, randomness)

    @staticmethod
    def destroy(path: Path, token: Token, pin: bytes) -> None:
        """Destroy the token's wrapping key: no copy of the file opens after that. Raises ConfigurationError."""
        wrapped = _read(path)
        with _session(token, pin, writing=True) as session:
            session.get_key(**_which(wrapped)).destroy()


def _read(path: Path) -> _Wrapped:
    fields = read_wrapped(path, FORM, "pkcs11")
    try:
        wrapped = msgspec.convert(fields, _Wrapped)
        if len(bytes.fromhex(wrapped.id)) == ID_BYTES and len(bytes.fromhex(wrapped.nonce)) == NONCE_BYTES:
            bytes.fromhex(wrapped.sealed)
            return wrapped
    except ValueError:  # msgspec's errors are of this kind
        pass
    raise ConfigurationError(f"kek {path}: damaged; restore the file")


def _which(wrapped: _Wrapped) -> dict[str, Any]:
    import pkcs11  # noqa: PLC0415  - an extra

    return {"object_class": pkcs11.ObjectClass.SECRET_KEY, "id": bytes.fromhex(wrapped.id)}


def _gcm(identity: str, nonce: bytes) -> dict[str, Any]:
    import pkcs11  # noqa: PLC0415  - an extra

    bound = f"{FORM} {identity}".encode()
    return {"mechanism": pkcs11.Mechanism.AES_GCM, "mechanism_param": pkcs11.GCMParams(nonce, bound, 128)}


# What an operator reads for the errors of PKCS #11 that a person can mend; the rest are named as the token names them.
_REMEDIES = {
    "PinIncorrect": "wrong PIN; the token locks itself after a few of them",
    "PinLocked": "the PIN is locked; unlock the token with its own tool",
    "PinLenRange": "the PIN has a length the token does not take; correct it",
    "PinInvalid": "the PIN has characters the token does not take; correct it",
    "NoSuchToken": "there is no token of that label; initialise one, or correct [seal] token",
    "MultipleTokensReturned": "several tokens have that label; rename one",
    "NoSuchKey": "the token does not hold this site's wrapping key; insert the right token",
    "EncryptedDataInvalid": "the wrapped key does not open; restore the file `kek`",
    "GeneralError": "the token failed, or the wrapped key does not open; restore the file `kek`",
    "TokenNotPresent": "the token is not there; insert it",
    "TokenWriteProtected": "the token is write-protected",
    "UserPinNotInitialized": "the token has no user PIN yet; set one with the token's own tool",
}


@contextmanager
def _session(token: Token, pin: bytes, *, writing: bool) -> Iterator[Any]:
    try:
        import pkcs11  # noqa: PLC0415  - an extra
    except ImportError:
        raise ConfigurationError("PKCS#11: python-pkcs11 is missing; run pip install 'heliograph[hsm]'") from None
    where = f"token {token.label!r} of {token.module}"
    try:
        text = pin.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where}: the PIN is not UTF-8; correct it") from None
    if not token.module.is_file():
        raise ConfigurationError(f"{where}: no such library; install the token's PKCS#11 module or correct the path")
    try:
        library = pkcs11.lib(str(token.module))
        library.reinitialize()  # a token that was initialised or inserted after the first look is seen too
        with library.get_token(token_label=token.label).open(rw=writing, user_pin=text) as session:
            yield session
    except pkcs11.PKCS11Error as error:
        name = type(error).__name__
        raise ConfigurationError(f"{where}: {_REMEDIES.get(name, str(error) or 'refused')} ({name})") from None
    except RuntimeError as error:  # the library could not be loaded
        raise ConfigurationError(f"{where}: {error}; is it a PKCS#11 module?") from None
