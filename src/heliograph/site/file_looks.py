"""What the files of a configuration were when they were read: one that moves meanwhile is noticed.

A certificate and its key, or a preshared key and the certificate beside it, are put in place one after the other: what
is read between the two is of neither set. The content alone would not tell a file that was exchanged and put back.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Look", "changed", "look_at"]


@dataclass(frozen=True, slots=True)
class Look:
    """A file at one moment: which it is and when it was written (stat(2)), and a digest of its content."""

    identity: tuple[int, ...]
    digest: bytes = field(repr=False)


def look_at(paths: Iterable[Path]) -> dict[Path, Look | None]:
    """Return how each file stands; None for one that cannot be read, of which whoever needs it says so."""
    return {path: _look(path) for path in paths}


def changed(before: Mapping[Path, Look | None], after: Mapping[Path, Look | None]) -> list[Path]:
    """Return the files whose content is another one now, or that were not among those before."""
    return [path for path, look in after.items() if _digest(before.get(path)) != _digest(look)]


def _look(path: Path) -> Look | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for, nor emptied
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        content = b""
        if stat.S_ISREG(found.st_mode):
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return Look(identity, hashlib.sha256(content).digest())


def _digest(look: Look | None) -> bytes | None:
    return None if look is None else look.digest
