"""Records what crosses one end of a wire between two namespaces, by a raw socket, and reads it back."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.lab.network_path import NetworkPath

__all__ = ["frames", "recorded"]

_RECORD: Final = """
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
wire.bind((sys.argv[1], 0))
with open(sys.argv[2], "wb", buffering=0) as out:
    print("ready", flush=True)
    while True:
        frame = wire.recv(65535)
        out.write(struct.pack(">I", len(frame)) + frame)
"""


@contextlib.contextmanager
def recorded(path: NetworkPath, file: Path) -> Iterator[None]:
    """Record site 0's end of the wire into ``file``, until the end of the block. Raises ConfigurationError."""
    words = path.words(0, sys.executable, "-c", _RECORD, path.wire(0), str(file))
    # A session of its own: Ctrl-C reaches the command only, which then ends this.
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as recorder:  # noqa: S603
        try:
            assert recorder.stdout is not None
            if recorder.stdout.readline() != "ready\n":
                raise ConfigurationError(f"{path.wire(0)} cannot be recorded: root is needed")
            yield
        finally:
            recorder.kill()


def frames(file: Path) -> Iterator[bytes]:
    """Yield every whole frame of a recording."""
    data, at = file.read_bytes(), 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + size > len(data):
            return  # the recorder was killed while it wrote this one
        yield data[at + 4 : at + 4 + size]
        at += 4 + size
