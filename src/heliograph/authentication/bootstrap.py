"""How two sites may begin to believe each other."""

from __future__ import annotations

from typing import Final

__all__ = ["METHODS", "has_book", "has_signature"]

METHODS: Final = ("psk", "pki", "openpgp", "psk+pki", "psk+openpgp")


def has_book(method: str) -> bool:
    """Return whether a slot of a key book takes part."""
    return method.startswith("psk")


def has_signature(method: str) -> bool:
    """Return whether signatures take part."""
    return method != "psk"
