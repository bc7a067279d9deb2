"""PostgreSQL's messages are cut where they end, however they come."""

import struct

import pytest

from heliograph.lab.pg_wire import Splitter, copy_fail, error, process_of, query, ready

START = struct.pack("!II", 8 + 10, 196608) + b"user\0x\0\0\0\0"
ENCRYPTION = struct.pack("!II", 8, 80877103)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_messages_are_whole_whatever_the_network_cuts(size):
    parts = [ENCRYPTION, START, query("SELECT 1"), copy_fail(), query("")]
    splitter, stream, found = Splitter(client=True), b"".join(parts), []
    for at in range(0, len(stream), size):
        found += splitter.feed(stream[at : at + size])
    assert found == list(zip(["encryption", "startup", "Q", "f", "Q"], parts, strict=True))


def test_a_servers_messages_have_a_letter_from_the_first_on():
    key = b"K" + struct.pack("!III", 12, 4711, 99)
    parts = [key, error("ERROR", "53100", "disk full"), ready(b"E")]
    found = Splitter(client=False).feed(b"".join(parts))
    assert [kind for kind, _ in found] == ["K", "E", "Z"]
    assert process_of(found[0][1]) == 4711
    assert found[1][1].endswith(b"C53100\0Mdisk full\0\0")
    assert found[2][1] == b"Z\0\0\0\x05E"
