"""The anti-rollback anchor: a small file outside the backed-up store, bound to this machine (security.md 4)."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from heliograph.errors import ConfigurationError, RollbackDetected, StoreUnavailable

__all__ = ["FileAnchor"]

_MACHINE_ID = Path("/etc/machine-id")


def _machine() -> str:
    try:
        identity = _MACHINE_ID.read_bytes().strip()
    except OSError:
        identity = b""
    return hashlib.sha256(b"heliograph/1 anchor" + identity).hexdigest()[:16]


class FileAnchor:
    """Remembers the highest (epoch, block) for which a pad was spent. Exclude the file from every backup.

    Without a TPM or a token, a rollback of store and anchor together, or of both sites at once, is not detected.
    """

    def __init__(self, path: Path) -> None:
        """Take the file's path; it is made at the first mark. Raises ConfigurationError if it cannot be read."""
        self._path = path
        self._turn = threading.Lock()
        self._mark = self._load()

    @classmethod
    def unread(cls, path: Path) -> FileAnchor:
        """Return an anchor that does not look at its file: only to destroy what it would protect."""
        anchor = cls.__new__(cls)
        anchor._path, anchor._mark = path, (0, 0)  # noqa: SLF001  - a constructor
        anchor._turn = threading.Lock()  # noqa: SLF001  - the same
        return anchor

    @classmethod
    def adopt(cls, path: Path) -> None:
        """Make the mark belong to this machine, by an operator's word; of a damaged one nothing is known."""
        try:
            words = path.read_text(encoding="ascii", errors="replace").split()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigurationError(f"anchor {path}: cannot be read ({error}); restore access to it") from error
        whole = len(words) == 3 and all(word.isdecimal() for word in words[:2])
        anchor = cls.unread(path)
        anchor._write(  # noqa: SLF001  - a constructor
            *((int(words[0]), int(words[1])) if whole else (0, 0))
        )

    def _load(self) -> tuple[int, int]:
        try:
            words = self._path.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return 0, 0
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"anchor {self._path}: cannot be read ({error}); restore access to it") from error
        if len(words) != 3 or not all(word.isdecimal() for word in words[:2]):
            raise RollbackDetected(f"anchor {self._path}: damaged; run `heliograph site rebootstrap`")
        if words[2] != _machine():
            raise RollbackDetected(
                f"anchor {self._path}: made on another machine: this is a clone or a restored backup; "
                "run `heliograph site rebootstrap`"
            )
        return int(words[0]), int(words[1])

    def read(self) -> tuple[int, int]:
        """Return the highest mark."""
        return self._mark

    def advance(self, epoch: int, block: int) -> None:
        """Write and sync a new file, then put it in place of the old one.

        Callers from several threads take turns; who finds a later mark written already need not write.
        """
        with self._turn:
            if (epoch, block) > self._mark:
                self._write(epoch, block)

    def _write(self, epoch: int, block: int) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, f"{epoch} {block} {_machine()}\n".encode("ascii"))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fresh.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise StoreUnavailable(f"anchor {self._path}: {error.strerror}; nothing was sent") from error
        self._mark = (epoch, block)
