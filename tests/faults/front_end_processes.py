"""A site with a delivery server and front ends in processes of their own, for tests."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.lab.ports import free_ports
from heliograph.site.config import read_site
from heliograph.site.kek import open_kek
from heliograph.site.setup import _value
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.randomness import SystemRandomness

COMMAND = [sys.executable, "-m", "heliograph.cli.main"]


def add_delivery(toml, server, names, addresses=None):
    """Write [delivery] into a site file; return each front end's address."""
    addresses = addresses or {
        name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)
    }
    entries = [{"name": name, "listen": addresses[name], "directory": name} for name in names]
    text = (
        toml.read_text() + f"\n[delivery]\nserver = {json.dumps(server.conninfo())}\nfront_ends = {_value(entries)}\n"
    )
    toml.write_text(text)
    return addresses


def fill(toml, block, *, owned, held):
    """Store keys in a stopped site's own file, as a committed block leaves them; return them by key_ID."""
    config = read_site(toml)
    entry, database = config.file.agent, Database(config.path(config.file.store), open_kek(config))
    keys = KeyRecords(database, SystemRandomness())
    rows = [
        NewKey(str(uuid.uuid4()), *pair, here, os.urandom(32), 100.0)
        for number, pair, here in (
            (owned, (entry.sae, entry.peer_sae), True),
            (held, (entry.peer_sae, entry.sae), False),
        )
        for _ in range(number)
    ]
    with database.transaction() as cursor:
        keys.add(cursor, 1, block, rows, "{}")
        keys.acknowledge(cursor, 1, block)
    database.close()
    return {row.key_id: row.material for row in rows}


def heliograph(*words):
    """Run one command; return what it did."""
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


class FrontEndProcess:
    """One ``heliograph kme serve``, which ends when this process ends."""

    def __init__(self, toml, name, address):
        self.toml, self.name, self.address = toml, name, address
        self.log = toml.parent / f"{name}.log"
        self.process = None

    async def start(self):
        words = ["heliograph.cli.main", "kme", "serve", str(self.toml), "--front-end", self.name]
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "heliograph.lab.child", *words,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(60):
            line = await self.process.stdout.readline()
        assert line, self.log.read_text()
        assert json.loads(line) == {"ready": True, "front_end": self.name}

    async def end(self, number):
        self.process.send_signal(number)
        async with asyncio.timeout(30):
            return await self.process.wait()

    def client(self):
        config = read_site(self.toml)
        kme, agent = config.file.kme, config.file.agent
        tls = client_tls(config.path(agent.certificate), config.path(agent.key), config.path(kme.ca), kme.id)
        return Etsi014Client(f"https://{self.address}", tls, agent.sae, agent.peer_sae)


def short_directory():
    """Return a new directory whose name leaves room for Unix sockets."""
    import tempfile  # noqa: PLC0415

    return Path(tempfile.mkdtemp(prefix="hgd"))
