"""The anti-rollback anchor: a small file outside the backed-up store, bound to this machine (security.md 4)."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from heliograph.errors import ConfigurationError, RollbackDetected, StoreUnavailable

__all__ = ["FileAnchor"]

_MACHINE_ID = Path("/etc/machine-id")
_RECORD_BYTES = 512  # a sector: written whole or not at all by most disks, and the check tells where it was not
# Each slot in a block of its own: most file systems and disks write, tear and lose 4 KiB together.
_BLOCK_BYTES = 4096
_FILE_BYTES = 2 * _BLOCK_BYTES
_OLD_FILE_BYTES = 2 * _RECORD_BYTES  # two slots in one block, as earlier builds wrote them


@dataclass(frozen=True, slots=True)
class _Mark:
    """A mark as the file has it, and in which slot; -1 where the next one needs a new file.

    That is: the forms that came before (ADR 0046), and a file of which one slot cannot be read.
    """

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
    return f"{text} {check}".ljust(_RECORD_BYTES - 1).encode("ascii") + b"\n"


def _highest(path: Path) -> _Mark | None:
    """Return the highest whole mark; None if there is no whole one. Raises OSError if nothing can be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        step = {_FILE_BYTES: _BLOCK_BYTES, _OLD_FILE_BYTES: _RECORD_BYTES}.get(size)
        if step is None:
            return _one_line(os.pread(descriptor, _RECORD_BYTES, 0)) if size <= _RECORD_BYTES else None
        slots, refusal = [], None
        for slot in (0, 1):
            try:
                slots.append(_whole_record(os.pread(descriptor, _RECORD_BYTES, slot * step), slot))
            except OSError as error:  # a bad block: the other one has the mark before, or the same
                slots.append(None)
                if refusal is not None:
                    raise
                refusal = error
    finally:
        os.close(descriptor)
    found = max((mark for mark in slots if mark is not None), key=lambda mark: (mark.epoch, mark.block), default=None)
    if found is None or (size == _FILE_BYTES and None not in slots):
        return found
    return replace(found, slot=-1)


def _one_line(content: bytes) -> _Mark | None:
    words = content.decode("ascii", errors="replace").split()
    if len(words) == 3 and all(word.isdecimal() for word in words[:2]):
        return _Mark(int(words[0]), int(words[1]), words[2], -1)
    return None


def _whole_record(content: bytes, slot: int) -> _Mark | None:
    words = content.decode("ascii", errors="replace").split()
    if len(words) == 4 and all(word.isdecimal() for word in words[:2]):
        mark = _Mark(int(words[0]), int(words[1]), words[2], slot)
        if _record(mark.epoch, mark.block, mark.machine) == content:  # else half-written when the power went
            return mark
    return None


class FileAnchor:
    """Remembers the highest (epoch, block) for which a pad was spent. Exclude the file from every backup.

    The file has two slots, written in turn and in place: a mark costs one sync and no change of the directory, and a
    power cut while one is written leaves the other, also where it takes the whole block with it. A block that has gone
    bad leaves the other slot's mark: the last one, or the one before. Without a TPM or a token, a rollback of store
    and anchor together, or of both sites at once, is not detected.
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
            mark = _highest(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigurationError(f"anchor {path}: cannot be read ({error}); restore access to it") from error
        cls.unread(path)._write(*((mark.epoch, mark.block) if mark else (0, 0)))  # noqa: SLF001  - a constructor

    def _load(self) -> tuple[tuple[int, int], int]:
        try:
            mark = _highest(self._path)
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
            slot = None
            if self._slot >= 0:
                with suppress(OSError):  # a block gone bad, as a rule: then a new file lies elsewhere
                    slot = self._in_place(record)
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
            if os.fstat(descriptor).st_size != _FILE_BYTES:
                return None
            slot = 1 - self._slot
            if os.pwrite(descriptor, record, slot * _BLOCK_BYTES) != _RECORD_BYTES:
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
            if os.write(descriptor, 2 * record.ljust(_BLOCK_BYTES)) != _FILE_BYTES:
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
