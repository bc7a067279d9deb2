"""A site's copy of the key book: a file from which slots are burnt, one by one, before their first byte is used."""

from __future__ import annotations

import os
from pathlib import Path

from heliograph.authentication.anchors.book_marks import BookMarks
from heliograph.authentication.anchors.psk import (
    BookHeader,
    EpochSecrets,
    SlotUsed,
    fingerprint,
    make_book,
    parse_header,
    secret_size,
    slot_range,
    slot_secrets,
)
from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.ports import RandomSource

__all__ = ["PskFile", "create_book", "write_book"]


def create_book(path: Path, randomness: RandomSource) -> str:
    """Write a fresh book, mode 0600, and return its fingerprint. Raises ConfigurationError if the file exists."""
    book = make_book(randomness.draw(secret_size()))
    write_book(path, book)
    return fingerprint(book)


def write_book(path: Path, book: bytes) -> None:
    """Write a book as a courier would hand it over: a new file, mode 0600, on the disk when this returns."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigurationError(
            f"key book {path}: the file exists; name another, a book is never overwritten"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"key book {path}: {error.strerror}; name a new file that this user can write"
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(book)
        file.flush()
        os.fsync(descriptor)


class PskFile:
    """The anchor of one link. It is never in a backup: a restored book would open a used slot again."""

    def __init__(self, path: Path) -> None:
        """Check the file. Raises ConfigurationError naming the remedy."""
        self._path = path
        self._read()

    def _read(self) -> bytes:
        try:
            if self._path.stat().st_mode & 0o077:
                raise ConfigurationError(f"key book {self._path}: others can read it; run chmod 600 {self._path}")
            return self._path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"key book {self._path}: {error.strerror}; make one with `heliograph site psk` and carry it here"
            ) from error

    def header(self) -> BookHeader:
        """Return the part that is not used up."""
        return self._header(self._read())

    def _header(self, book: bytes) -> BookHeader:
        try:
            return parse_header(book)
        except ConfigurationError as why:
            raise ConfigurationError(f"key book {self._path}: {why}") from None

    def marks(self) -> BookMarks:
        """Return what a registration keeps of an unused book. Raises ConfigurationError for a used one."""
        try:
            return BookMarks.of(self._read())
        except ConfigurationError as why:
            raise ConfigurationError(f"key book {self._path}: {why}") from None

    def check(self, marks: BookMarks) -> None:
        """Raise ConfigurationError unless this is the registered book, whatever of it is burnt."""
        try:
            marks.check(self._read())
        except ConfigurationError as why:
            raise ConfigurationError(f"key book {self._path}: {why}") from None

    def burn_slot(self, epoch: int) -> EpochSecrets:
        """Read the slot that opens ``epoch`` and erase it, and all earlier ones, durably, before it is used.

        Raises SlotUsed if it was burnt before, StoreUnavailable if the file cannot be written.
        """
        book = self._read()
        self._header(book)
        start, stop = slot_range(epoch - 1)
        if not any(book[start:stop]):
            raise SlotUsed(f"key book {self._path}: the slot of epoch {epoch} was used before")
        secrets = slot_secrets(book[start:stop])
        first, _ = slot_range(0)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, bytes(stop - first), first)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(f"key book {self._path}: {error.strerror}; the slot was not used") from error
        return secrets
