"""A small disk in memory, which can be filled up: a tmpfs that only root can mount."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from heliograph.errors import ConfigurationError

__all__ = ["SmallDisk", "why_no_disk"]

_BALLAST: Final = "ballast"
_PART: Final = 1 << 16


def why_no_disk() -> str:
    """Return why no disk can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "a full disk needs a tmpfs, which only root can mount"
    if shutil.which("mount") is None:
        return "a full disk needs mount, which is not installed (apt-get install mount)"
    return ""


class SmallDisk:
    """``mib`` MiB at ``place``. Raises ConfigurationError if it cannot be mounted."""

    def __init__(self, place: Path, mib: int) -> None:
        self.place = place
        self._ballast = place / _BALLAST
        place.mkdir(parents=True, exist_ok=True)
        self._run("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "heliograph", str(place))

    def fill(self) -> None:
        """Take every byte that is left."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(_PART))
            except OSError as why:
                if why.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give them back."""
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount it, also while somebody still looks at it."""
        with suppress(ConfigurationError):
            self._run("umount", "-l", str(self.place))

    @staticmethod
    def _run(*words: str) -> None:
        done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603  - a program of the system
        if done.returncode:
            raise ConfigurationError(f"{words[0]}: {(done.stderr.strip().splitlines() or [str(done.returncode)])[-1]}")
