"""A real KME on loopback with real certificates, and the plainest possible HTTP client beside our own."""

import asyncio
import base64
import contextlib
import json
import os
import ssl
import uuid

import pytest

from heliograph.http.server import serve
from heliograph.http.tls import client_tls, server_tls
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.testing.clock import ManualClock
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

PAIRS = [
    SaePair("sae-a", "sae-b", "kme-b"),
    SaePair("sae-a", "sae/with slash", "kme-b"),
    SaePair("sae-2", "sae-b", "kme-b"),
]


def new_key(master, slave, *, here):
    return NewKey(str(uuid.uuid4()), master, slave, here, os.urandom(32), 100.0)


class Site:
    """Site A: SAEs sae-a and sae-2 here, sae-b at the other site. ``run`` serves while a coroutine function acts."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = SiteCa.create("site A")
        self.kme_files = self.ca.issue_kme("kme-a", ["127.0.0.1", "localhost"]).write(directory, "kme")
        FileKek.create(directory / "kek", SystemRandomness())
        self.blocks = 0
        self.owner_reachable = True
        self.open()

    def open(self):
        self.database = Database(
            self.directory / "site" / "store.db", FileKek(self.directory / "kek", SystemRandomness())
        )
        self.keys = KeyRecords(self.database, SystemRandomness())

    def add(self, rows, metadata="{}"):
        self.blocks += 1
        with self.database.transaction() as cursor:
            self.keys.add(cursor, 1, self.blocks, rows, metadata)
            self.keys.acknowledge(cursor, 1, self.blocks)
        return rows

    def add_owned(self, number, slave="sae-b"):
        return self.add([new_key("sae-a", slave, here=True) for _ in range(number)])

    def add_held(self, number, slave="sae-a"):
        return self.add([new_key("sae-b", slave, here=False) for _ in range(number)])

    def sae_files(self, sae_id, ca=None):
        return (ca or self.ca).issue_sae(sae_id).write(self.directory, f"sae-{uuid.uuid4()}")

    def sae_tls(self, sae_id, kme_id="kme-a"):
        return client_tls(*self.sae_files(sae_id), kme_id)

    def run(self, act, *, limits=None, **more):
        """Serve while ``act`` runs; ``more`` goes to the supply."""

        async def main():
            supply = Supply(
                self.keys,
                "kme-a",
                PAIRS,
                limits or Limits(),
                ManualClock(200.0),
                owner_reachable=lambda _: self.owner_reachable,
                **more,
            )
            server = await serve(supply, "127.0.0.1", 0, server_tls(*self.kme_files))
            try:
                return await act(server)
            finally:
                await server.close()

        return asyncio.run(main())


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.database.close()


async def exchange(port, tls, raw):
    """Send bytes over TLS, return (status, headers in lower case, body) of the one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1")
    try:
        writer.write(raw)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"])) if not raw.startswith(b"HEAD") else b""
        return int(head[0].split()[1]), headers, body
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def ask(port, tls, verb, path, body=None, *, headers=""):
    """Send one request as written; return (status, headers, parsed JSON)."""
    length = f"Content-Length: {len(body)}\r\n" if body is not None else ""
    head = f"{verb} {path} HTTP/1.1\r\nHost: kme\r\n{length}{headers}\r\n".encode()
    status, found, answer = await exchange(port, tls, head + (body or b""))
    assert found["content-type"].startswith("application/json")
    return status, found, json.loads(answer) if answer else None


def served(answer):
    return [(entry["key_ID"], base64.b64decode(entry["key"], validate=True)) for entry in answer["keys"]]


@pytest.fixture
def wire():
    """Give the functions of the plain client."""

    class Wire:
        exchange = staticmethod(exchange)
        ask = staticmethod(ask)
        served = staticmethod(served)

    return Wire
