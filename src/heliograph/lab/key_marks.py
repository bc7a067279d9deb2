"""Looks for keys in logs: each key's own bytes, and blocks' keys as they cross, in every form that a log may show."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["KeyMarks"]

_BYTES: Final = 16  # as many of a key's bytes tell it from everything else
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{32,}")
_BASE64: Final = re.compile(rb"[0-9A-Za-z+/_-]{20,}")
_DIGITS: Final = 20  # of base64: fifteen bytes


@dataclass
class KeyMarks:
    """What must not be found."""

    _hex: dict[bytes, str] = field(default_factory=dict, repr=False)
    _base64: dict[bytes, str] = field(default_factory=dict, repr=False)

    def add_key(self, key: bytes) -> None:
        """Add a key."""
        self._add(key, "key")

    def add_sealed(self, sealed: bytes) -> None:
        """Add a block's key, sealed: with the key-encryption key it opens what a log keeps of that block."""
        self._add(sealed, "sealed")

    def search(self, *logs: Path) -> dict[str, int]:
        """Count lines that show one, by kind: "key" or "sealed"."""
        counts = {"key": 0, "sealed": 0}
        for log in logs:
            with log.open("rb") as file:
                for line in file:
                    for kind in set(self._of(line)):
                        counts[kind] += 1
        return counts

    def _add(self, secret: bytes, kind: str) -> None:
        self._hex[secret[:_BYTES].hex().encode()] = kind
        self._base64[base64.b64encode(secret)[:_DIGITS]] = kind
        self._base64[base64.urlsafe_b64encode(secret)[:_DIGITS]] = kind

    def _of(self, line: bytes) -> Iterator[str]:
        for run in _HEX.findall(line):
            low = run.lower()
            for at in range(len(low) - 2 * _BYTES + 1):
                if kind := self._hex.get(low[at : at + 2 * _BYTES]):
                    yield kind
        for run in _BASE64.findall(line):
            if kind := self._base64.get(run[:_DIGITS]):
                yield kind
