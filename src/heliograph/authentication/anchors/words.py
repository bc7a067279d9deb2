"""128 bits as two people say them on the telephone: twelve words with a checksum, and grouped hexadecimal.

The words are those of BIP 39 (English), from the library ``mnemonic``: 2048 words that differ in their first four
letters, 11 bits each, the last four bits of the twelfth word a checksum over the rest. They show a *public* value here;
the same words elsewhere stand for a secret, so nothing of this page is ever used as one.
"""

from __future__ import annotations

import difflib
import re
from functools import cache

from mnemonic import Mnemonic

from heliograph.errors import ConfigurationError

__all__ = ["VALUE_BYTES", "grouped", "parse_value", "words"]

VALUE_BYTES = 16
_WORDS = 12
_HEX_DIGITS = 2 * VALUE_BYTES


@cache
def _book() -> Mnemonic:
    return Mnemonic("english")


def words(value: bytes) -> str:
    """Return twelve words for ``VALUE_BYTES`` bytes."""
    _check_size(value)
    return _book().to_mnemonic(value)


def grouped(value: bytes) -> str:
    """Return ``VALUE_BYTES`` bytes as eight groups of four hexadecimal digits."""
    _check_size(value)
    digits = value.hex()
    return " ".join(digits[i : i + 4] for i in range(0, _HEX_DIGITS, 4))


def _check_size(value: bytes) -> None:
    if len(value) != VALUE_BYTES:
        raise ConfigurationError(f"a value to compare has {VALUE_BYTES} bytes, not {len(value)}")


def parse_value(text: str) -> bytes:
    """Read what a person typed: words or hexadecimal, any case, any spaces, commas, colons and hyphens between.

    Raises ConfigurationError that names the word that is none, its place, and the words meant by it perhaps; or says
    that the checksum does not fit, so that one of the words was misheard.
    """
    parts = [part for part in re.split(r"[\s,;:.\-]+", text.lower()) if part]
    joined = "".join(parts)
    # Eight words of the list ("beef", "face", ...) are hexadecimal too; twelve of them in a row have chance 2^-96.
    if re.fullmatch(r"[0-9a-f]+", joined):
        if len(joined) != _HEX_DIGITS:
            raise ConfigurationError(f"{len(joined)} hexadecimal digits: all {_HEX_DIGITS} are needed")
        return bytes.fromhex(joined)
    for place, part in enumerate(parts, start=1):
        if part not in _book().wordlist:
            near = difflib.get_close_matches(part, _book().wordlist, n=3)
            hint = f"; {' or '.join(near)}?" if near else ""
            raise ConfigurationError(f"word {place}, {part!r}, is not in the list{hint}")
    if len(parts) != _WORDS:
        raise ConfigurationError(
            f"{len(parts)} words: type all {_WORDS} words, or all {_HEX_DIGITS} hexadecimal digits"
        )
    try:
        return bytes(_book().to_entropy(parts))
    except ValueError:
        raise ConfigurationError(
            "the twelve words do not fit together (their checksum): one was misheard or mistyped, ask again"
        ) from None
