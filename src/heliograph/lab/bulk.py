"""Traffic for measurements: a sink that counts, and a source that sends and says what arrived; TCP, or paced packets.

    python -m heliograph.lab.bulk sink HOST PORT
    python -m heliograph.lab.bulk source HOST PORT BYTES SECONDS            whichever comes first
    python -m heliograph.lab.bulk packet-sink HOST PORT
    python -m heliograph.lab.bulk packet-source HOST PORT PACKETS RATE      UDP, RATE a second

A source prints one line of JSON: bytes or packets sent and received, seconds to the sink's own count.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from typing import Final

__all__ = ["MARKER", "main", "packet_sink", "packet_source", "sink", "source"]

_COUNT: Final = struct.Struct(">Q")
_CHUNK_BYTES: Final = 1 << 18
_ASK: Final = b"?"
_LAST: Final = b"!"
MARKER: Final = b"heliograph in clear " * 10  # what a recorder of the wire looks for
_PATIENCE_SECONDS: Final = 10.0


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
    data = memoryview((MARKER * (_CHUNK_BYTES // len(MARKER) + 1))[:_CHUNK_BYTES])
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


def packet_sink(host: str, port: int) -> None:
    """Count packets that are numbered; answer the question how many different ones came. Runs until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        listening.bind((host, port))
        print("ready", flush=True)  # noqa: T201  - whoever started this waits for it
        came: set[bytes] = set()
        while True:
            packet, sender = listening.recvfrom(2048)
            if len(packet) == 1:  # the question
                listening.sendto(_COUNT.pack(len(came)), sender)
                if packet == _LAST:
                    came.clear()
            else:
                came.add(packet[: _COUNT.size])


def packet_source(host: str, port: int, packets: int, per_second: float) -> dict[str, float | int]:
    """Send numbered packets at an even rate, then ask what came. Raises OSError if nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.connect((host, port))
        began = time.perf_counter()
        for number in range(packets):
            sending.send(_COUNT.pack(number) + MARKER)
            ahead = number / per_second - (time.perf_counter() - began)
            if ahead > 0.001:
                time.sleep(ahead)
        took = time.perf_counter() - began
        sending.settimeout(0.5)
        for _ in range(6):
            try:
                sending.send(_ASK)
                received = _COUNT.unpack(sending.recv(2048))[0]
            except TimeoutError:
                continue
            sending.send(_LAST)
            return {"sent": packets, "received": received, "seconds": took}
    raise TimeoutError("the packet sink does not answer")


def main(words: list[str]) -> None:
    """Run one of the four."""
    kind, host, port = words[0], words[1], int(words[2])
    if kind == "sink":
        sink(host, port)
    elif kind == "packet-sink":
        packet_sink(host, port)
    else:
        try:
            found: dict[str, float | int | str] = (
                {**source(host, port, int(words[3]), float(words[4]))}
                if kind == "source"
                else {**packet_source(host, port, int(words[3]), float(words[4]))}
            )
        except OSError as why:
            found = {"error": str(why)}
        print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
