"""The options that say what protects the key-encryption key of a new site or node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["Kek", "Pkcs11Module", "Pkcs11Token", "Secret"]

Kek = Annotated[Literal["file", "passphrase", "pkcs11"], typer.Option(help="What protects the key-encryption key.")]
Secret = Annotated[str, typer.Option(help="Where passphrase or PIN comes from: terminal, fd:N or credential:/PATH.")]
Pkcs11Module = Annotated[Path | None, typer.Option(help="The token's PKCS#11 library.")]
Pkcs11Token = Annotated[str | None, typer.Option(help="The token's label.")]
