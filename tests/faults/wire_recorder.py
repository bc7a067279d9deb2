"""Records what crosses an interface of a network namespace, by a raw socket, and reads it back."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from heliograph.encryptors.records import HEADER_BYTES, RecordHeader, parse_header
from heliograph.lab.network_path import NetworkPath, why_no_namespaces

_RECORD = """
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


def require_namespaces(*, tun: bool = False) -> None:
    """Skip, by name, where no network namespace can be made."""
    why = why_no_namespaces()
    if why is not None:
        pytest.skip(why)
    if tun and not Path("/dev/net/tun").exists():
        pytest.skip("/dev/net/tun is missing")


@contextlib.contextmanager
def recorded(path: NetworkPath, file: Path):
    """Record site 0's end of the wire into ``file``."""
    words = path.words(0, sys.executable, "-c", _RECORD, path.wire(0), str(file))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as recorder:
        try:
            assert recorder.stdout.readline() == "ready\n"
            yield
        finally:
            recorder.kill()


def frames(file: Path):
    """Yield every whole frame of a recording."""
    data, at = file.read_bytes(), 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + size > len(data):
            return  # the recorder was killed while it wrote this one
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def udp_records(file: Path) -> list[RecordHeader]:
    """Return the header of the record in every UDP datagram over IPv4; a datagram that is none fails the test."""
    found = []
    for frame in frames(file):
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            length = int.from_bytes(frame[38:40], "big") - 8
            header = parse_header(frame[42 : 42 + HEADER_BYTES])
            assert header.length == length - HEADER_BYTES
            found.append(header)
    return found
