"""What a test reads out of a recording of the wire; skips, by name, where no wire can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliograph.encryptors.records import HEADER_BYTES, RecordHeader, parse_header
from heliograph.lab.network_path import why_no_namespaces
from heliograph.lab.wire import frames


def require_namespaces(*, tun: bool = False) -> None:
    """Skip, by name, where no network namespace can be made."""
    why = why_no_namespaces()
    if why is not None:
        pytest.skip(why)
    if tun and not Path("/dev/net/tun").exists():
        pytest.skip("/dev/net/tun is missing")


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
