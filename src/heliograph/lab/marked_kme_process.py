"""A ``lab.marked_kme`` in a process of its own, as its parent sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from heliograph.errors import ConfigurationError

__all__ = ["MarkedKme"]


class MarkedKme:
    """Starts one below ``directory``. Raises ConfigurationError with its last words.

    ``held``: for each SAE, key_IDs that wait for it as a slave. ``requests_per_s``: of each SAE; 0 for any number.
    """

    def __init__(self, directory: Path, saes: int, keys: int, requests_per_s: float = 0) -> None:
        words = [str(directory), str(saes), str(keys), str(requests_per_s)]
        command = [sys.executable, "-m", "heliograph.lab.marked_kme", *words]
        self._errors = (directory / "errors").open("w+b")
        self._process = subprocess.Popen(  # noqa: S603  - our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
        )
        try:
            ready = self._line()
        except BaseException:  # such as Ctrl-C: nobody has this object yet, to close it
            self.kill()
            self.close()
            raise
        self.port, self.held = int(ready["port"]), list(ready["held"])

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip().splitlines()
            raise ConfigurationError(f"the key manager ended: {words[-1] if words else 'it said nothing'}")
        found: dict[str, Any] = json.loads(line)
        return found

    def state(self) -> dict[str, Any]:
        """Ask for memory, processor time, and what is left. Raises ConfigurationError if the process is gone."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._line()

    def kill(self) -> None:
        """Let nobody wait for its answers any more; ``close`` is still to be called."""
        self._process.kill()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()
