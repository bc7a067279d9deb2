"""The anti-rollback anchor: a small file outside the backed-up store, bound to this machine (security.md 4)."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from heliograph.errors import ConfigurationError, RollbackDetected, StoreUnavailable

__all__ = ["FileAnchor"]

_MACHINE_ID = Path("/etc/machine-id")
_SLOT_BYTES = 512  # a sector: written whole or not at all by most disks, and the check tells where it was not


@dataclass(frozen=True, slots=True)
class _Mark:
    """A mark as the file has it, and in which slot; -1 for the form of one line that came before (ADR 0046)."""

    epoch: int
    block: int
    machine: str
    slot: int


def _machine() -> str:
    try:
        identity = _MACHINE_ID.read_bytes().strip()
    except OSError:
        identity = b""
    return hashlib.sha256(b"heliograph/1 anchor" + identity).hexdigest()[:16]


def _record(epoch: int, block: int, machine: str) -> bytes:
    text = f"{epoch} {block} {machine}"
    check = hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
    return f"{text} {check}".ljust(_SLOT_BYTES - 1).encode("ascii") + b"\n"


def _highest(content: bytes) -> _Mark | None:
    """Return the highest whole mark; None if there is no whole one."""
    words = content.decode("ascii", errors="replace").split()
    if len(words) == 3 and all(word.isdecimal() for word in words[:2]):
        return _Mark(int(words[0]), int(words[1]), words[2], -1)
    marks = []
    for slot in range(2 if len(content) == 2 * _SLOT_BYTES else 0):
        part = content[slot * _SLOT_BYTES : (slot + 1) * _SLOT_BYTES]
        words = part.decode("ascii", errors="replace").split()
        if len(words) == 4 and all(word.isdecimal() for word in words[:2]):
            mark = _Mark(int(words[0]), int(words[1]), words[2], slot)
            if _record(mark.epoch, mark.block, mark.machine) == part:  # else half-written when the power went
                marks.append(mark)
    return max(marks, key=lambda mark: (mark.epoch, mark.block), default=None)


class FileAnchor:
    """Remembers the highest (epoch, block) for which a pad was spent. Exclude the file from every backup.

    The file has two slots, written in turn and in place: a mark costs one sync and no change of the directory, and a
    power cut while one is written leaves the other. Without a TPM or a token, a rollback of store and anchor together,
    or of both sites at once, is not detected.
    """

    def __init__(self, path: Path) -> None:
        """Take the file's path; it is made at the first mark. Raises ConfigurationError if it cannot be read."""
        self._path = path
        self._turn = threading.Lock()
        self._machine = ""
        self._mark, self._slot = self._load()

    @classmethod
    def unread(cls, path: Path) -> FileAnchor:
        """Return an anchor that does not look at its file: only to destroy what it would protect."""
        anchor = cls.__new__(cls)
        anchor._path, anchor._mark, anchor._slot = path, (0, 0), -1  # noqa: SLF001  - a constructor
        anchor._turn, anchor._machine = threading.Lock(), ""  # noqa: SLF001  - the same
        return anchor

    @classmethod
    def adopt(cls, path: Path) -> None:
        """Make the mark belong to this machine, by an operator's word; of a damaged one nothing is known."""
        try:
            mark = _highest(path.read_bytes())
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigurationError(f"anchor {path}: cannot be read ({error}); restore access to it") from error
        cls.unread(path)._write(*((mark.epoch, mark.block) if mark else (0, 0)))  # noqa: SLF001  - a constructor

    def _load(self) -> tuple[tuple[int, int], int]:
        try:
            mark = _highest(self._path.read_bytes())
        except FileNotFoundError:
            return (0, 0), -1
        except OSError as error:
            raise ConfigurationError(f"anchor {self._path}: cannot be read ({error}); restore access to it") from error
        if mark is None:
            raise RollbackDetected(f"anchor {self._path}: damaged; run `heliograph site rebootstrap`")
        if mark.machine != _machine():
            raise RollbackDetected(
                f"anchor {self._path}: made on another machine: this is a clone or a restored backup; "
                "run `heliograph site rebootstrap`"
            )
        return (mark.epoch, mark.block), mark.slot

    def read(self) -> tuple[int, int]:
        """Return the highest mark."""
        return self._mark

    def advance(self, epoch: int, block: int) -> None:
        """Write and sync the mark in the slot of the one before the last. Raises StoreUnavailable.

        Callers from several threads take turns; who finds a later mark written already need not write.
        """
        with self._turn:
            if (epoch, block) > self._mark:
                self._write(epoch, block)

    def _write(self, epoch: int, block: int) -> None:
        self._machine = self._machine or _machine()  # once: it is the same at each of a hundred marks a second
        record = _record(epoch, block, self._machine)
        try:
            slot = self._in_place(record) if self._slot >= 0 else None
            if slot is None:
                self._whole(record)
                slot = 0
        except OSError as error:
            raise StoreUnavailable(f"anchor {self._path}: {error.strerror}; nothing was sent") from error
        self._mark, self._slot = (epoch, block), slot

    def _in_place(self, record: bytes) -> int | None:
        """Overwrite the older slot and return it; None if the file is not there in this form any more."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(descriptor).st_size != 2 * _SLOT_BYTES:
                return None
            slot = 1 - self._slot
            if os.pwrite(descriptor, record, slot * _SLOT_BYTES) != _SLOT_BYTES:
                raise OSError(errno.EIO, "written in part")
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        return slot

    def _whole(self, record: bytes) -> None:
        """Write and sync a new file, then put it in place of the old one."""
        fresh = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, 2 * record) != 2 * _SLOT_BYTES:
                raise OSError(errno.EIO, "written in part")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
