"""A front end as a process, asked over mutual TLS while its delivery server fails at one message after the other."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import aiohttp

from heliograph.http.tls import client_tls
from heliograph.lab.front_end_process import FrontEndProcess, add_delivery, fill_store, move_keys
from heliograph.lab.key_marks import KeyMarks
from heliograph.lab.pg_proxy import Fault, FaultyProxy, What
from heliograph.lab.ports import free_ports
from heliograph.lab.postgres import LabPostgres
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.site.config import SiteConfig, read_site
from heliograph.testing.links import example_registration

__all__ = ["DoorReport", "ask_under_faults"]

_FRONT: Final = "fe-1"
_REACH: Final = 12  # a fault comes at one of so many messages or requests from now on
_ASKED_MAX: Final = 40  # requests until it has come; the front end asks its server now and then by itself too
_BACK_S: Final = 20.0
_PAUSE_S: Final = 0.02
_BUGS: Final = ("Traceback", "internal error", "request failed", "never retrieved")
_WHATS: Final = (What.CUT_BEFORE, What.CUT_AFTER, What.CUT_ANSWER, What.ERROR)
_SHOWN: Final = 10


@dataclass
class DoorReport:
    """``statuses``: answers by status. ``wrong``: other statuses, or a refusal that is not one line; no answer at all.

    ``burnt``: keys that left the server and reached nobody, at most one for each 503; below 0 one came and is still
    there. ``log_lines``: what the front end said.
    """

    faults: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    keys: int = 0
    duplicates: int = 0
    other_bytes: int = 0
    burnt: int = 0
    wrong: int = 0
    stuck: int = 0
    bugs_in_log: int = 0
    key_in_logs: int = 0
    sealed_in_logs: int = 0
    log_lines: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        return not (
            self.duplicates or self.other_bytes or self.wrong or self.stuck or self.bugs_in_log or self.key_in_logs
            or self.sealed_in_logs or not 0 <= self.burnt <= self.statuses.get(503, 0)
        )  # fmt: skip


async def ask_under_faults(
    faults: int, seed: int, directory: Path, server: LabPostgres, errors: Mapping[str, str]
) -> DoorReport:
    """Let ``faults`` things go wrong behind one front end. ``directory``: not there yet; ``errors``: codes to answer.

    Raises ConfigurationError if the front end does not start.
    """
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(directory.mkdir)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        scene = _Scene(directory, server, seed, stack)
        await scene.open(8 * faults + 20)
        for number in range(faults):
            await scene.one(number, list(errors))
        return await scene.end()


class _Scene:
    def __init__(self, directory: Path, server: LabPostgres, seed: int, stack: AsyncExitStack) -> None:
        rehearsal = Rehearsal(directory, Ports.free(), 5.0, 1, registration=example_registration(100_000))
        rehearsal.prepare()
        self._toml = rehearsal.sites["site_a"]
        self._server, self._stack = server, stack
        self._chance = Random(seed)  # noqa: S311  - a laboratory's choice, no secret
        self._address = f"127.0.0.1:{free_ports(1)[0]}"
        self._report = DoorReport()
        self._statuses: Counter[int] = Counter()
        self._given: Counter[str] = Counter()
        self._tried: set[str] = set()

    async def open(self, number: int) -> None:
        way = self._toml.parent / "way"
        way.mkdir()
        self._proxy = FaultyProxy(way, self._server.directory)
        self._stack.callback(self._proxy.close)
        add_delivery(self._toml, self._server.conninfo(by=way), {_FRONT: self._address})
        config = read_site(self._toml)
        stored = await asyncio.to_thread(fill_store, config, number)
        self._keys = {key_id: key for key_id, (key, _) in stored.items()}
        self._held = [key_id for key_id, (_, here) in stored.items() if not here]
        await move_keys(self._toml)
        with self._server.session() as session:  # the link's process does not run, and says nothing of its peer
            session.execute("UPDATE heliograph.store SET link_connected = true, link_at = now() + interval '1 day'")
        self._front = FrontEndProcess(self._toml, _FRONT)
        await self._front.start()
        self._stack.push_async_callback(self._front.end, signal.SIGKILL)
        self._session = await self._stack.enter_async_context(self._client(config))

    def _client(self, config: SiteConfig) -> aiohttp.ClientSession:
        kme, agent = config.file.kme, config.file.agent
        assert agent is not None
        assert agent.certificate is not None
        assert agent.key is not None
        tls = client_tls(config.path(agent.certificate), config.path(agent.key), config.path(kme.ca), kme.id)
        self._url = f"https://{self._address}/api/v1/keys/{agent.peer_sae}"
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=aiohttp.ClientTimeout(total=60))

    async def one(self, number: int, codes: list[str]) -> None:
        """Let one thing go wrong, and then ask until there is a key again."""
        what, code = _WHATS[number % len(_WHATS)], codes[number // len(_WHATS) % len(codes)]
        away = self._chance.choice((0, 0, 1, 4)) if what is not What.ERROR else 0
        self._proxy.arm(Fault(what, self._chance.randrange(1, _REACH + 1), away, code=code, fatal=code == "57P01"))
        for _ in range(_ASKED_MAX):
            await (self._fetch() if self._held and self._chance.random() < 0.3 else self._master())
            if self._proxy.fired:
                break
        self._report.faults += self._proxy.fired
        began = time.monotonic()
        while await self._master() != 200:
            if time.monotonic() - began > _BACK_S:
                self._report.stuck += 1
                break
            await asyncio.sleep(_PAUSE_S)
        self._proxy.disarm()

    async def _master(self) -> int:
        status, _ = await self._ask("enc_keys", {"number": 1, "size": 256}, {200, 503})
        return status

    async def _fetch(self) -> None:
        key_id = self._held[0]
        status, _ = await self._ask(
            "dec_keys", {"key_IDs": [{"key_ID": key_id}]}, {200, 503} | ({400} if key_id in self._tried else set())
        )
        self._tried.add(key_id)
        if status in {200, 400}:
            self._held.pop(0)

    async def _ask(self, method: str, body: object, allowed: set[int]) -> tuple[int, bytes]:
        try:
            async with self._session.post(f"{self._url}/{method}", json=body) as response:
                status, answer = response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as why:
            self._wrong(f"{method}: no answer: {type(why).__name__}")
            return 0, b""
        self._statuses[status] += 1
        if status not in allowed:
            self._wrong(f"{method}: {status}")
        try:
            document = json.loads(answer)
            if status == 200:
                self._take(document["keys"])
            elif not document["message"] or "\n" in document["message"]:
                self._wrong(f"{method}: {status}, which does not say why in one line")
        except (ValueError, KeyError, TypeError):
            self._wrong(f"{method}: {status} with a body of another form")
        return status, answer

    def _take(self, keys: list[dict[str, str]]) -> None:
        for key in keys:
            self._given[key["key_ID"]] += 1
            self._report.other_bytes += base64.b64decode(key["key"]) != self._keys[key["key_ID"]]

    def _wrong(self, text: str) -> None:
        self._report.wrong += 1
        if len(self._report.found) < _SHOWN:
            self._report.found.append(text)

    async def end(self) -> DoorReport:
        """Stop the front end and look at what is left, and at both logs."""
        report, marks = self._report, KeyMarks()
        if await self._front.end(signal.SIGTERM) != 0:
            self._wrong("the front end did not end by itself")
        with self._server.session() as session:
            (gone,) = session.execute("SELECT count(*) FROM heliograph.key_tombstones").fetchone()
            session.execute("DROP SCHEMA heliograph CASCADE")
        report.statuses = dict(sorted(self._statuses.items()))
        report.keys = len(self._given)
        report.duplicates = sum(count - 1 for count in self._given.values())
        report.burnt = gone - len(self._given)
        for key in self._keys.values():
            marks.add_key(key)
        text = self._front.log.read_text(errors="replace")
        report.bugs_in_log = sum(text.count(word) for word in _BUGS)
        report.log_lines = sorted(set(text.splitlines()))[:200]
        found = marks.search(self._front.log, self._server.directory / "log")
        report.key_in_logs, report.sealed_in_logs = found["key"], found["sealed"]
        return report
