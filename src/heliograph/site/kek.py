"""The key-encryption key of a site, behind one port whatever protects it: a file, a passphrase, a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.ports import RandomSource, Vault
from heliograph.site.config import SiteConfig
from heliograph.site.seal_entry import SealEntry
from heliograph.vault.filekek import FileKek
from heliograph.vault.owned_file import shred
from heliograph.vault.passphrasekek import PassphraseKek
from heliograph.vault.randomness import SystemRandomness
from heliograph.vault.secret_input import read_secret, take_secret
from heliograph.vault.tokenkek import TokenKek

__all__ = [
    "Sealable",
    "create_kek",
    "destroy_kek",
    "open_kek",
    "open_kek_unasked",
    "open_kek_with",
    "require_secret",
    "seal_table",
    "secret_of",
]


class _Entries(Protocol):
    @property
    def kek(self) -> str: ...

    @property
    def seal(self) -> SealEntry: ...


class Sealable(Protocol):
    """A configuration with a key-encryption key: a site's, or a network node's."""

    @property
    def directory(self) -> Path:
        """Where relative paths start."""

    @property
    def file(self) -> _Entries:
        """The entries."""

    def path(self, entry: str) -> Path:
        """Return the absolute path of an entry."""


def open_kek(config: Sealable) -> Vault:
    """Open the key-encryption key, asking a person on the terminal if need be.

    Raises SiteSealed without the passphrase or PIN, ConfigurationError for whatever does not open.
    """
    entry = config.file.seal
    return open_kek_with(config, b"" if entry.kind == "file" else read_secret(entry.secret, entry.what))


def open_kek_unasked(config: SiteConfig) -> Vault | None:
    """Open it without asking anybody; None if the passphrase or PIN is not at hand."""
    entry = config.file.seal
    if entry.kind == "file":
        return open_kek_with(config, b"")
    secret = take_secret(entry.secret, entry.what)
    return None if secret is None else open_kek_with(config, secret)


def open_kek_with(config: Sealable, secret: bytes) -> Vault:
    """Open it with this passphrase or PIN. Raises ConfigurationError."""
    entry, path, randomness = config.file.seal, config.path(config.file.kek), SystemRandomness()
    if entry.kind == "passphrase":
        return PassphraseKek(path, secret, randomness)
    if entry.kind == "pkcs11":
        return TokenKek(path, entry.token_at(config.directory), secret, randomness)
    return FileKek(path, randomness)


def secret_of(config: SiteConfig) -> bytes:
    """Ask for the passphrase or PIN, for a running site. Raises ConfigurationError where there is none to give."""
    require_secret(config)
    return read_secret(config.file.seal.secret, config.file.seal.what)


def require_secret(config: SiteConfig) -> None:
    """Raise ConfigurationError unless a passphrase or a PIN opens this site."""
    if config.file.seal.kind == "file":
        raise ConfigurationError(
            f'{config.toml}: [seal] kind = "file": a plain key file opens by itself, nothing is sealed; for that, '
            "set up the site with --kek passphrase or pkcs11 (docs/how-to/store.md)"
        )


def create_kek(path: Path, entry: SealEntry, randomness: RandomSource, secret: Callable[[], bytes]) -> Vault:
    """Make a fresh key-encryption key. ``secret`` is asked for the passphrase or PIN if one is needed."""
    if entry.kind == "passphrase":
        return PassphraseKek.create(path, secret(), randomness)
    if entry.kind == "pkcs11":
        return TokenKek.create(path, entry.token_at(path.parent), secret(), randomness)
    return FileKek.create(path, randomness)


def destroy_kek(config: SiteConfig) -> tuple[list[str], str]:
    """Destroy what opens the store: in the token first, then the file.

    Returns what was destroyed, and why the token's key was not: the file is destroyed in any case.
    """
    entry, path = config.file.seal, config.path(config.file.kek)
    done, why = [], ""
    if entry.kind == "pkcs11" and path.exists():
        try:
            TokenKek.destroy(path, entry.token_at(config.directory), secret_of(config))
            done.append("the wrapping key in the token")
        except ConfigurationError as error:
            why = str(error)
    if shred(path, "kek"):
        done.append(f"the key-encryption key {path}")
    return done, why


def seal_table(entry: SealEntry) -> dict[str, object]:
    """Return the section [seal] as written into SITE.toml; empty for a plain file."""
    return {} if entry.kind == "file" else {k: v for k, v in msgspec.to_builtins(entry).items() if v is not None}
