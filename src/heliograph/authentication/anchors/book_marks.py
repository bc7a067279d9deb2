"""What a registration keeps of a key book, so that another book in its place is noticed while slots are burnt.

A mark is SHA-256 of a part of the book. It stays with the record of the registration (mode 0600, like the book), never
in a message or a report. To a reader without bounds it says 256 of a slot's 14,848 bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from heliograph.authentication.anchors.psk import SLOTS, parse_header, slot_range
from heliograph.errors import ConfigurationError

__all__ = ["BookMarks"]


@dataclass(frozen=True, slots=True)
class BookMarks:
    """SHA-256, in hexadecimal, of a book's header and of each of its slots as they were before the first was used."""

    header: str
    slots: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.slots) != SLOTS or any(len(mark) != 64 for mark in (self.header, *self.slots)):
            raise ConfigurationError("these are not the marks of a key book")

    @classmethod
    def of(cls, book: bytes) -> BookMarks:
        """Take the marks of an unused book. Raises ConfigurationError for a used one, or for what is no book."""
        parse_header(book)
        slots = [book[slice(*slot_range(slot))] for slot in range(SLOTS)]
        if not all(map(any, slots)):
            raise ConfigurationError(
                "was used before, so two people can no longer compare it: make and carry a new one, register that"
            )
        return cls(_header_mark(book), tuple(_slot_mark(number, slot) for number, slot in enumerate(slots)))

    def check(self, book: bytes) -> None:
        """Return nothing for the same book, its slots whole or burnt. Raises ConfigurationError for another one."""
        parse_header(book)
        if _header_mark(book) != self.header:
            raise ConfigurationError("is another book than the one that was registered")
        for number, mark in enumerate(self.slots):
            slot = book[slice(*slot_range(number))]
            if any(slot) and _slot_mark(number, slot) != mark:
                raise ConfigurationError(f"slot {number} is not that of the book that was registered")

    def digest(self) -> str:
        """Return SHA-256 over all marks: the book as a trust anchor, the same however many slots are burnt."""
        return hashlib.sha256(
            b"heliograph/1 book anchor" + b"".join(map(bytes.fromhex, (self.header, *self.slots)))
        ).hexdigest()


def _header_mark(book: bytes) -> str:
    return hashlib.sha256(b"heliograph/1 book header" + book[: slot_range(0)[0]]).hexdigest()


def _slot_mark(number: int, slot: bytes) -> str:
    return hashlib.sha256(b"heliograph/1 book slot" + bytes([number]) + slot).hexdigest()
