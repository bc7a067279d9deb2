"""Faults of a disk, for real programs: a small library loaded before the C library counts, records and breaks calls."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from importlib.resources import files
from pathlib import Path

from heliograph.errors import ConfigurationError

__all__ = ["Call", "DiskFaults", "Fault", "build_shim", "read_trace"]

_HEAD = struct.Struct("<cIQI")


class Fault(IntEnum):
    """What happens at one call. ``FULL``: every write from there on finds the disk full."""

    NONE = 0
    KILL = 1
    KILL_TORN = 2
    EIO = 3
    FULL = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call: w(rite), t(runcate), s(ync), u(nlink), r(ename), o(pen), or m, a mark of the scenario."""

    kind: str
    path: str
    offset: int
    data: bytes


def build_shim(directory: Path) -> Path:
    """Compile the library. Raises ConfigurationError without a C compiler, or on a system that is not Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise ConfigurationError("disk faults: need Linux and a C compiler; run apt-get install -y gcc")
    source, library = directory / "disk_faults.c", directory / "disk_faults.so"
    source.write_bytes(files("heliograph.lab").joinpath("disk_faults.c.in").read_bytes())
    own = ["env", f"TMPDIR={directory}"]  # what a compiler that is killed leaves goes with the rest
    command = [*own, compiler, "-shared", "-fPIC", "-O2", "-w", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  - fixed words
    if done.returncode:
        raise ConfigurationError(f"disk faults: {compiler} failed: {done.stderr.strip().splitlines()[-1]}")
    return library


class DiskFaults:
    """The library as loaded into this process."""

    def __init__(self) -> None:
        """Raise ConfigurationError if this process was started without it."""
        try:
            self._library = ctypes.CDLL(None)
            self._arm = self._library.disk_faults_arm
        except AttributeError:
            raise ConfigurationError("disk faults: this process was not started with its library") from None
        self._arm.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int)
        self._library.disk_faults_calls.restype = ctypes.c_long

    def arm(self, directory: Path, fault: Fault = Fault.NONE, at: int = 0, trace: int = -1) -> None:
        """Watch ``directory``; let ``fault`` happen at call number ``at``; write calls and marks to ``trace``."""
        self._arm(str(directory).encode(), at, fault, trace)

    def disarm(self) -> None:
        """Watch nothing more."""
        self._library.disk_faults_disarm()

    def mark(self, text: str) -> None:
        """Put a mark into the trace."""
        self._library.disk_faults_mark(text.encode())

    def calls(self) -> int:
        """Return how many calls were counted since ``arm``."""
        return int(self._library.disk_faults_calls())


def read_trace(data: bytes) -> Iterator[Call]:
    """Return the calls of a trace in order; one that was cut short at the end is left out."""
    position = 0
    while position + _HEAD.size <= len(data):
        kind, path_size, offset, size = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        end = position + path_size + size
        if end > len(data):
            return
        path = data[position : position + path_size].decode()
        yield Call(kind.decode(), path, offset, data[position + path_size : end])
        position = end
