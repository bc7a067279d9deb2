"""ETSI GS QKD 004 with clients of others, rebuilt here from how their programs write and read bytes.

``FixedClient``: github.com/QUBIP/etsi-qkd-004, client/client.py at 28507a37b612 (BSD 3-Clause), a Python port of
ETSI's library. ``TextClient``: the serialisers of a C library with ETSI's names (qkd/serializers.c, qkd/models.h),
one connection for each call. Nothing of this product's codec is used in them.
"""

import asyncio
import contextlib
import socket
import struct
import uuid

import pytest
from two_stream_sites import two_sites

from heliograph.http.tls import client_tls

SOURCE, DESTINATION = "sae:sae-a", "sae:sae-b"
NUMBERS = (64, 0, 500, 10, 0, 1000, 3600)  # chunk, max, min, jitter, priority, timeout, TTL


def context(site):
    files = site.ca.issue_sae(site.local).write(site.directory, f"sae-{uuid.uuid4()}")
    return client_tls(*files, f"kme-{site.name}")


class Other:
    """What the two have in common: the header, and blocking sockets."""

    def __init__(self, site):
        self.site, self.tls = site, context(site)

    def connected(self):
        plain = socket.create_connection(("127.0.0.1", self.site.server.port), timeout=10)
        return self.tls.wrap_socket(plain, server_hostname="127.0.0.1")

    @staticmethod
    def read(connection, size):
        data = b""
        while len(data) < size:
            piece = connection.recv(size - len(data))
            assert piece, "the server ended the connection"
            data += piece
        return data

    def exchange(self, connection, service, payload):
        connection.sendall(bytes([1, 0, 1, service]) + struct.pack("!I", len(payload)) + payload)
        header = self.read(connection, 8)
        assert header[:4] == bytes([1, 0, 1, service + 1])
        return self.read(connection, struct.unpack("!I", header[4:])[0])


class FixedClient(Other):
    """One connection; reads past the status only where it expects more."""

    def __init__(self, site):
        super().__init__(site)
        self.connection = self.connected()

    def open(self, numbers=NUMBERS, ksid=bytes(16), mimetype="application/json"):
        qos = struct.pack("!7I", *numbers) + mimetype.encode().ljust(256, b"\0")
        answer = self.exchange(self.connection, 2, f"{SOURCE}\0{DESTINATION}\0".encode() + qos + ksid)
        status = struct.unpack("!I", answer[:4])[0]
        if status not in {0, 1, 7}:  # that client takes 1 for a failure, although it is none
            return status, None, None
        return status, struct.unpack("!7I", answer[4:32]), answer[288:304]

    def get(self, ksid, index, size=1024):
        answer = self.exchange(self.connection, 4, ksid + struct.pack("!II", index, size))
        status = struct.unpack("!I", answer[:4])[0]
        if status == 8:
            return status, b"", struct.unpack("!I", answer[4:8])[0]
        if status:
            return status, b"", b""
        found, chunk = struct.unpack("!II", answer[4:12])
        assert found == index
        (left,) = struct.unpack("!I", answer[12 + chunk : 16 + chunk])
        return status, answer[12 : 12 + chunk], answer[16 + chunk : 16 + chunk + left]

    def close(self, ksid):
        return struct.unpack("!I", self.exchange(self.connection, 8, ksid))[0]


class TextClient(Other):
    """A connection for each call; reads every field whatever the status is, and would run past a short answer."""

    def call(self, service, payload):
        with self.connected() as connection:
            self.rest = self.exchange(connection, service, payload)

    def number(self):
        value, self.rest = struct.unpack("!I", self.rest[:4])[0], self.rest[4:]
        return value

    def sized(self):
        size = self.number()
        assert len(self.rest) >= size
        value, self.rest = self.rest[:size], self.rest[size:]
        return value

    def open(self, numbers=NUMBERS, ksid=bytes(16), mimetype="application/json"):
        qos = struct.pack("!7I", *numbers) + mimetype.encode() + b"\0"
        self.call(2, f"{SOURCE}\0{DESTINATION}\0".encode() + qos + ksid)
        status, proposed = self.number(), tuple(self.number() for _ in range(7))
        mimetype, end, ksid = self.rest.partition(b"\0")
        assert end
        assert len(ksid) == 16
        return status, proposed, ksid

    def get(self, ksid, index, size=1024):
        self.call(4, ksid + struct.pack("!II", index, size) + bytes(size))
        status, _, key, metadata = self.number(), self.number(), self.sized(), self.sized()
        assert not self.rest
        return status, key, metadata

    def close(self, ksid):
        self.call(8, ksid)
        return self.number()


@contextlib.contextmanager
def ended(client):
    yield client
    if isinstance(client, FixedClient):
        client.connection.close()


def run(act, directory, kinds, **more):
    async def main():
        async with two_sites(directory, **more) as (a, b, _):

            def both():
                with ended(kinds[0](a)) as one, ended(kinds[1](b)) as two:
                    act(one, two)

            await asyncio.to_thread(both)

    asyncio.run(main())


PAIRS = [(FixedClient, FixedClient), (TextClient, TextClient), (FixedClient, TextClient), (TextClient, FixedClient)]


@pytest.mark.parametrize("kinds", PAIRS)
def test_clients_of_others_get_the_same_chunks_from_both_sites(tmp_path, kinds):
    def act(one, two):
        status, numbers, ksid = one.open()
        assert (status, numbers, uuid.UUID(bytes=ksid).version) == (1, NUMBERS, 4)
        assert two.open(ksid=ksid) == (0, NUMBERS, ksid)
        for index in range(3):
            mine, theirs = one.get(ksid, index), two.get(ksid, index)
            assert (mine[0], theirs[0], len(mine[1])) == (0, 0, 64)
            assert mine[1] == theirs[1]
            assert b'"age"' in mine[2]
        assert (one.close(ksid), two.close(ksid)) == (0, 0)
        assert one.close(ksid) == 3

    run(act, tmp_path, kinds)


@pytest.mark.parametrize("kind", [FixedClient, TextClient])
def test_every_refusal_can_be_read_by_a_client_of_others(tmp_path, kind):
    def act(one, two):
        # A counter-proposal: it can be taken.
        status, numbers, _ = one.open((33, 0, 10**6, 10, 0, 1000, 3600))
        assert (status, numbers[0], numbers[2]) == (7, 64, 1000)
        status, _, ksid = one.open(numbers)
        assert status == 1
        assert one.get(ksid, 0)[0] == 3  # the peer is not there yet
        assert two.open(ksid=ksid)[0] == 0
        status, key, needed = one.get(ksid, 0, size=3)
        needed = needed if isinstance(needed, int) else len(needed)
        assert (status, key) == (8, b"")
        status, key, _ = one.get(ksid, 0, size=needed)
        assert (status, len(key)) == (0, 64)
        assert one.get(ksid, 0)[:2] == (2, b"")  # handed out before
        assert one.get(bytes(range(16)), 0)[0] == 3
        assert one.close(bytes(range(16))) == 3

    run(act, tmp_path, (kind, kind))


@pytest.mark.parametrize("kind", [FixedClient, TextClient])
def test_a_stream_without_metadata_needs_no_buffer_for_it(tmp_path, kind):
    def act(one, two):
        _, _, ksid = one.open(mimetype="")
        two.open(ksid=ksid, mimetype="")
        assert one.get(ksid, 0, size=0)[::2] == (0, b"")
        assert one.get(ksid, 0, size=0)[:2] == (2, b"")

    run(act, tmp_path, (kind, kind))
