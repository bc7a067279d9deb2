"""Front ends of a rehearsed site as processes of their own, with a PostgreSQL server for its keys."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.site.config import SiteConfig
from heliograph.site.kek import open_kek
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.randomness import SystemRandomness

__all__ = ["FrontEndProcess", "add_delivery", "fill_store", "move_keys"]

_START_S: Final = 120.0


def add_delivery(toml: Path, conninfo: str, addresses: Mapping[str, str]) -> None:
    """Write [delivery] into a site file. ``addresses``: where each front end listens, by its name."""
    entries = ", ".join(
        f'{{ name = "{name}", listen = "{address}", directory = "{name}" }}' for name, address in addresses.items()
    )
    text = f"\n[delivery]\nserver = {json.dumps(conninfo)}\nfront_ends = [{entries}]\n"
    toml.write_text(toml.read_text(encoding="utf-8") + text, encoding="utf-8")


async def move_keys(toml: Path) -> None:
    """Make the delivery server's tables and move the stopped site's keys there. Raises ConfigurationError."""
    words = ["-m", "heliograph.cli.main", "store", "move", str(toml)]
    done = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
    )
    try:
        out, _ = await done.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            done.kill()
        await done.wait()
        raise
    if done.returncode:
        raise ConfigurationError(f"store move: {out.decode(errors='replace').strip().splitlines()[-1:]}")


def fill_store(config: SiteConfig, number: int) -> dict[str, tuple[bytes, bool]]:
    """Store keys in the stopped site's own file, as a committed block leaves them: bytes, and if it owns them."""
    agent, draw = config.file.agent, SystemRandomness().draw
    assert agent is not None
    database = Database(config.path(config.file.store), open_kek(config))
    try:
        keys = KeyRecords(database, SystemRandomness())
        rows = [
            NewKey(str(uuid.uuid4()), *pair, here, draw(32), 100.0)
            for many, pair, here in (
                (number - number // 4, (agent.sae, agent.peer_sae), True),
                (number // 4, (agent.peer_sae, agent.sae), False),
            )
            for _ in range(many)
        ]
        with database.transaction() as cursor:
            keys.add(cursor, 1, 1, rows, "{}")
            keys.acknowledge(cursor, 1, 1)
    finally:
        database.close()
    return {row.key_id: (row.material, row.owner_here) for row in rows}


class FrontEndProcess:
    """One ``heliograph kme serve``, which ends when this process ends. ``log``: what it says goes there."""

    def __init__(self, toml: Path, name: str) -> None:
        self.toml, self.name = toml, name
        self.log = toml.parent / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start and wait until it listens. Raises ConfigurationError with its last words."""
        words = ["heliograph.cli.main", "kme", "serve", str(self.toml), "--front-end", self.name]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "heliograph.lab.child", *words,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_START_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            words = self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise ConfigurationError(f"front end {self.name} did not start: {words[-1]}")

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; return the exit status, 0 if it was never started."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            os.kill(self._process.pid, number)
        return await self._process.wait()
