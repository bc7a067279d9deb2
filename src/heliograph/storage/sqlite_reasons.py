"""What SQLite refused, as a cause and a remedy that an operator can read."""

from __future__ import annotations

import sqlite3
from typing import Final

__all__ = ["explain"]

_REASONS: Final = (
    ("SQLITE_FULL", "the disk is full; free space on its volume"),
    ("SQLITE_IOERR", "reading or writing failed; check the disk, its quota and its free space"),
    ("SQLITE_CORRUPT", "the file is damaged; destroy it and re-bootstrap the link"),
    ("SQLITE_NOTADB", "the file is not a store; name another path"),
    ("SQLITE_READONLY", "the file cannot be written; check its owner, its mode and the mount"),
    ("SQLITE_CANTOPEN", "the file cannot be opened; check its owner, its mode and its directory"),
    ("SQLITE_BUSY", "another connection holds it; let only this program open it"),
)


def explain(error: sqlite3.Error) -> str:
    """Return what SQLite refused as a cause and a remedy, with its own name for it."""
    code = getattr(error, "sqlite_errorname", type(error).__name__)
    own = str(error).partition(" with text ")[0]  # what follows would be a column's own bytes
    return f"{next((text for prefix, text in _REASONS if code.startswith(prefix)), own)} ({code})"
