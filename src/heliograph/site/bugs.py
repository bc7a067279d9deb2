"""Where an error that nobody foresaw arose; never its text, which might quote key material."""

from __future__ import annotations

import traceback
from pathlib import Path

__all__ = ["place"]


def place(error: BaseException) -> str:
    """Return "file:line" of the innermost frame, enough for a bug report."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
