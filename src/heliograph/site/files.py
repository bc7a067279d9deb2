"""Small files that must be whole or absent, whatever happens: written beside, synced, then put in place."""

from __future__ import annotations

import os
from pathlib import Path

from heliograph.errors import StoreUnavailable

__all__ = ["replace_file", "sync_directory"]


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` in place at once, mode 0600, on the disk when this returns. Raises StoreUnavailable."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}; nothing was changed there") from None


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
