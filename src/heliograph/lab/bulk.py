"""Bulk TCP for measurements: a sink that counts, and a source that sends and says what arrived.

    python -m heliograph.lab.bulk sink HOST PORT
    python -m heliograph.lab.bulk source HOST PORT BYTES SECONDS        whichever comes first

The source prints one line of JSON: bytes sent and received, seconds to the sink's own count.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from typing import Final

__all__ = ["main", "sink", "source"]

_COUNT: Final = struct.Struct(">Q")
_CHUNK_BYTES: Final = 1 << 18
_PATIENCE_SECONDS: Final = 60.0


def sink(host: str, port: int) -> None:
    """Take one connection after the other; answer each with the number of bytes that came. Runs until killed."""
    with socket.create_server((host, port)) as server:
        print("ready", flush=True)  # noqa: T201  - whoever started this waits for it
        space = bytearray(1 << 20)
        while True:
            connection, _ = server.accept()
            with connection:
                count = 0
                try:
                    while got := connection.recv_into(space):
                        count += got
                    connection.sendall(_COUNT.pack(count))
                except OSError:
                    continue  # the connection was cut: its source knows


def source(host: str, port: int, size: int, seconds: float) -> dict[str, float | int]:
    """Send up to ``size`` bytes for up to ``seconds``; return sent, received, seconds. Raises OSError."""
    data = memoryview(bytes(range(256)) * (_CHUNK_BYTES // 256))
    with socket.create_connection((host, port), timeout=_PATIENCE_SECONDS) as connection:
        sent, began = 0, time.perf_counter()
        while sent < size and time.perf_counter() - began < seconds:
            part = data[: min(_CHUNK_BYTES, size - sent)]
            connection.sendall(part)
            sent += len(part)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while len(answer) < _COUNT.size and (more := connection.recv(_COUNT.size)):
            answer += more
        took = time.perf_counter() - began
    received = _COUNT.unpack(answer)[0] if len(answer) == _COUNT.size else 0
    return {"sent": sent, "received": received, "seconds": took}


def main(words: list[str]) -> None:
    """Run one of the two."""
    if words[0] == "sink":
        sink(words[1], int(words[2]))
    else:
        try:
            found: dict[str, float | int | str] = {**source(words[1], int(words[2]), int(words[3]), float(words[4]))}
        except OSError as why:
            found = {"error": str(why)}
        print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
