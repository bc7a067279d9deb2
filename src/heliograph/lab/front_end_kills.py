"""``heliograph kme-chaos --front-end-kills N``: front ends are killed while SAEs fetch, and PostgreSQL with them.

Three front ends of one site hand out its keys from one PostgreSQL server. One after the other is killed by ``kill -9``
at a random moment and started again; before each tenth kill the server is killed too, as by a power cut. No key
may come twice, none may be lost but those whose answer was under way, and every key has the bytes that were stored.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heliograph.errors import ConfigurationError, HeliographError, InsufficientKeys, KeyNotFound
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.lab.front_end_process import FrontEndProcess, add_delivery, fill_store, move_keys
from heliograph.lab.ports import free_ports
from heliograph.lab.postgres import LabPostgres, running_postgres
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.site.config import read_site
from heliograph.testing.links import example_registration
from heliograph.types import DeliveredKey

__all__ = ["FrontEndReport", "run_front_end_kills"]

_NAMES: Final = ("fe-1", "fe-2", "fe-3")
_SERVER_EVERY: Final = 10
_EACH: Final = 40  # keys for each kill, a quarter of them held for the other site's SAE
_CLIENTS: Final = 3  # of each front end: two masters and one slave
_PAUSE_S: Final = 0.02
_ATTEMPTS, _MOMENT_S = 30, 0.5


@dataclass
class FrontEndReport:
    """``burnt``: keys that left the store and reached nobody; at most one for each client of a killed front end.

    ``back_s``: from the start of a killed front end until it listens, sorted.
    """

    kills: int
    server_kills: int = 0
    keys: int = 0
    delivered: int = 0
    burnt: int = 0
    burnt_at_most: int = 0
    left: int = 0
    duplicates: int = 0
    other_bytes: int = 0
    refusals: int = 0
    tracebacks: int = 0
    back_s: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        return not (
            self.duplicates or self.other_bytes or self.left or self.tracebacks or self.burnt > self.burnt_at_most
        )


async def run_front_end_kills(kills: int, seed: int) -> FrontEndReport:
    """Kill ``kills`` times. Raises ConfigurationError without PostgreSQL, or if a front end does not come back."""
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="hgk"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server = await stack.enter_async_context(running_postgres())
        scene = _Scene(directory, server, stack)
        report = await scene.run(kills, random.Random(seed))  # noqa: S311  - a laboratory's choice, no secret
    report.seconds = round(time.monotonic() - began, 1)
    return report


class _Scene:
    def __init__(self, directory: Path, server: LabPostgres, stack: AsyncExitStack) -> None:
        rehearsal = Rehearsal(directory, Ports.free(), 5.0, 1, registration=example_registration(100_000))
        rehearsal.prepare()
        self._toml = rehearsal.sites["site_a"]
        self._addresses = {name: f"127.0.0.1:{port}" for name, port in zip(_NAMES, free_ports(3), strict=True)}
        add_delivery(self._toml, server.conninfo(), self._addresses)
        self._server, self._stack = server, stack
        self._seen: list[DeliveredKey] = []
        self._refusals = self._allowed = 0  # keys may be fetched up to here, so that there are some for every kill
        self._stop = asyncio.Event()

    async def run(self, kills: int, chance: random.Random) -> FrontEndReport:
        keys = await asyncio.to_thread(fill_store, read_site(self._toml), (_EACH + _CLIENTS) * kills + _EACH)
        await move_keys(self._toml)
        fronts = {name: FrontEndProcess(self._toml, name) for name in _NAMES}
        for front in fronts.values():
            await front.start()
            self._stack.push_async_callback(front.end, signal.SIGKILL)
        held = [key_id for key_id, key in keys.items() if not key[1]]
        work = [
            asyncio.create_task(one)
            for name in _NAMES
            for one in (self._masters(name), self._masters(name), self._slaves(name, held))
        ]
        report = FrontEndReport(kills, keys=len(keys))
        try:
            for number in range(kills):
                await self._kill(fronts[_NAMES[number % len(_NAMES)]], number, report, chance)
                for task in work:
                    if task.done():
                        task.result()
            self._allowed = sys.maxsize  # not the count of keys: when none was burnt, nobody would go on to the end
            await self._until_empty()
            await asyncio.gather(*work[2::_CLIENTS])
        finally:
            self._stop.set()
            await asyncio.gather(*work, return_exceptions=True)
        return self._counted(report, keys, fronts)

    async def _kill(self, front: FrontEndProcess, number: int, report: FrontEndReport, chance: random.Random) -> None:
        self._allowed += _EACH
        goal = len(self._seen) + chance.randrange(1, _EACH // 2)
        while len(self._seen) < min(goal, self._allowed):  # noqa: ASYNC110  - a count, not an event
            await asyncio.sleep(_PAUSE_S)
        await asyncio.sleep(chance.uniform(0.0, 0.05))  # any step of a request
        if number % _SERVER_EVERY == _SERVER_EVERY - 1:
            report.server_kills += 1
            await asyncio.to_thread(self._server.kill)
            await self._server_again()
        await front.end(signal.SIGKILL)
        began = time.monotonic()
        await front.start()
        report.back_s.append(round(time.monotonic() - began, 2))

    async def _server_again(self) -> None:
        """Start the server; its processes need a moment to be gone. Raises ConfigurationError."""
        for _ in range(_ATTEMPTS):
            with suppress(ConfigurationError):
                return await asyncio.to_thread(self._server.start)
            await asyncio.sleep(_MOMENT_S)
        return await asyncio.to_thread(self._server.start)

    def _counted(
        self, report: FrontEndReport, keys: dict[str, tuple[bytes, bool]], fronts: dict[str, FrontEndProcess]
    ) -> FrontEndReport:
        ids = Counter(key.key_id for key in self._seen)
        report.delivered = len(ids)
        report.duplicates = sum(count - 1 for count in ids.values())
        report.other_bytes = sum(keys[key.key_id][0] != key.material for key in self._seen)
        report.left = self._left()
        report.burnt = len(keys) - report.left - len(ids)
        # The server's end cuts off the answers of all three.
        report.burnt_at_most = _CLIENTS * (report.kills + len(_NAMES) * report.server_kills)
        report.refusals = self._refusals
        report.tracebacks = sum(front.log.read_text(errors="replace").count("Traceback") for front in fronts.values())
        report.back_s.sort()
        return report

    def _left(self) -> int:
        with self._server.session() as session:
            return int(session.execute("SELECT count(*) FROM heliograph.key_records").fetchone()[0])

    async def _until_empty(self) -> None:
        try:
            async with asyncio.timeout(120):
                while self._left():  # noqa: ASYNC110  - a question to another process
                    await asyncio.sleep(_MOMENT_S)
        except TimeoutError:
            raise ConfigurationError(f"{self._left()} keys could not be fetched") from None

    def _client(self, name: str) -> Etsi014Client:
        config = read_site(self._toml)
        kme, agent = config.file.kme, config.file.agent
        assert agent is not None
        assert agent.certificate is not None
        assert agent.key is not None
        tls = client_tls(config.path(agent.certificate), config.path(agent.key), config.path(kme.ca), kme.id)
        return Etsi014Client(f"https://{self._addresses[name]}", tls, agent.sae, agent.peer_sae)

    async def _masters(self, name: str) -> None:
        async with self._client(name) as client:
            while not self._stop.is_set():
                if len(self._seen) >= self._allowed:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                try:
                    self._seen.append(await client.get_key())
                except InsufficientKeys:
                    await asyncio.sleep(_PAUSE_S)
                except HeliographError:
                    self._refusals += 1
                    await asyncio.sleep(_PAUSE_S)

    async def _slaves(self, name: str, held: list[str]) -> None:
        """Fetch every named key here too: whoever comes second must be told that it is gone."""
        async with self._client(name) as client:
            for key_id in held:
                while not self._stop.is_set():
                    if len(self._seen) >= self._allowed:
                        await asyncio.sleep(_PAUSE_S)
                        continue
                    try:
                        self._seen.append(await client.get_key_with_id(key_id))
                    except KeyNotFound:
                        pass
                    except HeliographError:
                        self._refusals += 1
                        await asyncio.sleep(_PAUSE_S)
                        continue
                    break
