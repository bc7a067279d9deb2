"""The section [seal] of SITE.toml: what protects the key-encryption key.

[seal]                               # optional; without it the file `kek` is the key itself
kind = "passphrase"                  # or "pkcs11"
secret = "credential:/run/credentials/heliograph.service/store"   # or "fd:3", or "terminal", the default
module = "/usr/lib/softhsm/libsofthsm2.so"   # pkcs11: the vendor's library
token = "site-a"                             # pkcs11: the token's label
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.vault.secret_input import check_source
from heliograph.vault.tokenkek import Token

__all__ = ["SealEntry"]


class SealEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What protects the key-encryption key, and where its passphrase or PIN comes from."""

    kind: Literal["file", "passphrase", "pkcs11"] = "file"
    secret: str = "terminal"  # noqa: S105  - where it comes from, not what it is
    module: str | None = None
    token: str | None = None

    @property
    def what(self) -> str:
        """What a person is asked for."""
        return "PIN" if self.kind == "pkcs11" else "passphrase"

    def check(self) -> None:
        """Raise ConfigurationError for entries that do not belong together."""
        try:
            check_source(self.secret)
        except ConfigurationError as error:
            raise ConfigurationError(f"[seal] {error}") from None
        for entry, value in (("module", self.module), ("token", self.token)):
            if (self.kind == "pkcs11") != bool(value):
                need = "needed" if self.kind == "pkcs11" else "not allowed"
                remedy = f"give [seal] {entry} (--pkcs11-{entry})" if self.kind == "pkcs11" else "leave it out"
                raise ConfigurationError(f'[seal] {entry} = {value!r}: {need} with kind = "{self.kind}"; {remedy}')

    def token_at(self, directory: Path) -> Token:
        """Return the token; a relative library path starts from ``directory``."""
        assert self.module is not None
        assert self.token is not None
        return Token((directory / self.module).absolute(), self.token)
