"""Files with one preshared key of TLS each, for encryptors that ask under it (SKIP)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.vault.owned_file import read_owned

__all__ = ["PSK_BYTES_MAX", "PSK_BYTES_MIN", "read_preshared_key"]

# Our choices: 256 bits for a suite of 256 bits (RFC 9257 4.2 demands 128 at least).
PSK_BYTES_MIN: Final = 32
PSK_BYTES_MAX: Final = 64
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2}){%d,%d}\r?\n?" % (PSK_BYTES_MIN, PSK_BYTES_MAX))


def read_preshared_key(path: Path) -> bytes:
    """Return the key of a file that holds it in hexadecimal, as `openssl rand -hex 32` writes it.

    Raises ConfigurationError; its text never holds a byte of the file.
    """
    text = read_owned(path, 2 * PSK_BYTES_MAX + 2, "preshared key")
    if not _HEX.fullmatch(text):
        raise ConfigurationError(
            f"preshared key {path}: needs one line of {2 * PSK_BYTES_MIN} to {2 * PSK_BYTES_MAX} hexadecimal digits; "
            f"draw one (openssl rand -hex {PSK_BYTES_MIN})"
        )
    key = bytes.fromhex(text.decode("ascii"))
    if not any(key):
        raise ConfigurationError(f"preshared key {path}: only zeros; draw one (openssl rand -hex {PSK_BYTES_MIN})")
    return key
