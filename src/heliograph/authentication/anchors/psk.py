"""A pre-shared key as a book of numbered slots, made by our tool and carried to both sites by a person.

A slot is long enough that the first block under it is authenticated information-theoretically: it holds the pads of
the first blocks of an epoch. Epoch e is opened by slot e - 1. An attempt burns its slot before the first byte leaves;
the last two slots open only by an operator (security.md 7). The book's resynchronisation key authenticates the marks
that the sites compare at each connection; it is used for nothing else, and whoever breaks it can only deny service.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS
from heliograph.authentication.pads import PAD_SET_BYTES
from heliograph.errors import ConfigurationError

__all__ = [
    "OPERATOR_SLOTS",
    "SLOTS",
    "BookHeader",
    "EpochSecrets",
    "KeyBook",
    "SlotUsed",
    "book_size",
    "fingerprint",
    "make_book",
    "parse_header",
    "secret_size",
    "slot_range",
    "slot_secrets",
]

_MAGIC = b"HELIOGRAPH-PSK-1"
_KEY_BYTES = 32

# Our choice: sixteen slots make a book, two are kept for an operator.
SLOTS = 16
OPERATOR_SLOTS = 2
SLOT_BYTES = 2 * _KEY_BYTES + BOOTSTRAP_BLOCKS * PAD_SET_BYTES
_HEADER_BYTES = len(_MAGIC) + 16 + _KEY_BYTES


class KeyBook(Protocol):
    """A site's copy of a book, wherever it is kept."""

    def header(self) -> BookHeader:
        """Return the part that is not used up. Raises ConfigurationError."""

    def burn_slot(self, epoch: int) -> EpochSecrets:
        """Erase the slot that opens ``epoch``, and all earlier ones, durably; then return it.

        Raises SlotUsed if it was burnt before, StoreUnavailable if it cannot be erased.
        """


class SlotUsed(ConfigurationError):
    """This slot of the key book was burnt before: it never opens another epoch."""


@dataclass(frozen=True, slots=True)
class BookHeader:
    """The part of a book that is not used up. ``identifier`` is public and equal on both sites."""

    identifier: str
    resync_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EpochSecrets:
    """What one slot opens. ``pad_sets`` belong to blocks 1, 2, ... of the epoch."""

    filter_key_to_receiver: bytes = field(repr=False)
    filter_key_to_transmitter: bytes = field(repr=False)
    pad_sets: tuple[bytes, ...] = field(repr=False)


def book_size() -> int:
    """Return the size of a book in bytes."""
    return _HEADER_BYTES + SLOTS * SLOT_BYTES


def secret_size() -> int:
    """Return how many fresh uniform bytes a book is made of."""
    return book_size() - len(_MAGIC)


def make_book(secret: bytes) -> bytes:
    """Build a book from ``secret_size()`` fresh uniform bytes. A passphrase cannot be used."""
    if len(secret) != secret_size():
        raise ConfigurationError(f"a book needs {secret_size()} fresh random bytes, not {len(secret)}")
    return _MAGIC + secret


def parse_header(book: bytes) -> BookHeader:
    """Read the header. Raises ConfigurationError for anything that is not a whole book."""
    if len(book) != book_size() or not book.startswith(_MAGIC):
        raise ConfigurationError("this is not a Heliograph key book: make one with `heliograph site psk FILE`")
    start = len(_MAGIC)
    return BookHeader(book[start : start + 16].hex(), book[start + 16 : start + 16 + _KEY_BYTES])


def slot_range(slot: int) -> tuple[int, int]:
    """Return the byte range of a slot in its book. Raises ConfigurationError beyond the last."""
    if not 0 <= slot < SLOTS:
        raise ConfigurationError("the key book is used up: make and carry a new one to both sites")
    start = _HEADER_BYTES + slot * SLOT_BYTES
    return start, start + SLOT_BYTES


def slot_secrets(material: bytes) -> EpochSecrets:
    """Split a slot. Raises ConfigurationError for a slot that was burnt (all zero)."""
    if len(material) != SLOT_BYTES or not any(material):
        raise ConfigurationError("this slot of the key book was used before: it cannot open another epoch")
    pads = material[2 * _KEY_BYTES :]
    return EpochSecrets(
        material[:_KEY_BYTES],
        material[_KEY_BYTES : 2 * _KEY_BYTES],
        tuple(pads[i : i + PAD_SET_BYTES] for i in range(0, len(pads), PAD_SET_BYTES)),
    )


def fingerprint(book: bytes) -> str:
    """Return 128 bits by which two people compare their copies; it says nothing about the slots' content.

    SHA-256 over the whole book is safe here because the book holds far more than 256 uniform bits.
    """
    digest = hashlib.sha256(b"heliograph/1 book" + book).hexdigest()[:32]
    return " ".join(digest[i : i + 4] for i in range(0, 32, 4))
