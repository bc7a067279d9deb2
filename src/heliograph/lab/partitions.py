"""``heliograph kme-chaos --partitions N``: two sites in processes of their own, cut from each other and from others.

Relays stand between the parts. While SAEs fetch keys at both sites, one relay after the other is cut at a random
moment, in one direction or both, silently or by ending its connections, and healed. No key may come twice, both sites
must give the same key under one name, and each service must come back by itself.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heliograph.errors import HeliographError
from heliograph.lab.cut_consumers import Consumers
from heliograph.lab.cut_managers import CutManagers
from heliograph.lab.cutting_relay import CuttingRelay, from_port, from_socket
from heliograph.lab.front_end_process import FrontEndProcess, add_delivery, move_keys
from heliograph.lab.postgres import LabPostgres, postgres_programs
from heliograph.lab.rehearsal import Ports, Rehearsal, free_ports
from heliograph.site.config import read_site
from heliograph.testing.links import example_registration

__all__ = ["PairCuts", "PartitionReport", "run_partitions"]

LINK, SAES, FRONT_END, OUTBOX, MANAGERS = (
    "site and site", "key manager and SAEs", "front end and PostgreSQL", "link's process and PostgreSQL",
    "key manager and key manager (ETSI GS QKD 020)",
)  # fmt: skip
_CUT_S: Final = (0.3, 1.0, 3.0)
_DEADLINE_S: Final = 90.0
_BLOCK_BITS: Final = 100_000  # blocks of about a quarter of a second
_KILOMETRES: Final = 5.0  # of example_registration


@dataclass
class PairCuts:
    """What one pair went through. ``resume_s``: from the healing to the service's next success, sorted."""

    cuts: int = 0
    one_way: int = 0
    hard: int = 0
    served_during: int = 0
    served_until_resumed: int = 0
    stuck: int = 0
    resume_s: list[float] = field(default_factory=list)


@dataclass
class PartitionReport:
    """``fetched``: keys that both sides of a pair of SAEs have; ``burnt``: taken, and the answer died in a cut."""

    pairs: dict[str, PairCuts]
    not_cut: dict[str, str]
    fetched: int = 0
    burnt: int = 0
    duplicates: int = 0
    disagreements: int = 0
    log_errors: int = 0
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        stuck = sum(pair.stuck for pair in self.pairs.values())
        return not (self.duplicates or self.disagreements or self.log_errors or stuck)


async def run_partitions(number: int, seed: int) -> PartitionReport:
    """Cut ``number`` times, each pair in its turn. Raises HeliographError if the sites do not start."""
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="hgp"))  # short: Unix sockets have short paths
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        scene = _Scene(directory, stack)
        await scene.start()
        chance = random.Random(seed)  # noqa: S311  - a laboratory's choice, no secret
        for turn in range(number):
            await scene.cut(list(scene.relays)[turn % len(scene.relays)], chance)
        report = await scene.end()
    report.seconds = round(time.monotonic() - began, 1)
    return report


class _Scene:
    """Two sites, a fibre, SAEs, and with PostgreSQL a front end in place of site A's own key manager."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory, self._stack = directory, stack
        ports = Ports.free()
        self._rehearsal = Rehearsal(
            directory,
            Ports(**{**{name: getattr(ports, name) for name in ports.__slots__}, "control_tap": ports.control,
                     "tunnel_tap": ports.tunnel}),
            _KILOMETRES,
            1,
            {"rekey_seconds": 5.0, "max_key_age_s": 60.0},
            registration=example_registration(_BLOCK_BITS),
            start_s=_DEADLINE_S,
        )  # fmt: skip
        self.relays: dict[str, list[CuttingRelay]] = {}
        self._report = PartitionReport({}, {})
        self._front: FrontEndProcess | None = None

    async def start(self) -> None:
        self._rehearsal.prepare()
        ports = self._rehearsal.ports
        link = await self._relay(LINK, CuttingRelay(from_port(ports.classical)))
        await link.listen(ports.classical_tap)
        doors = []
        for port in (ports.kme_a, ports.kme_b):
            door = await self._relay(SAES, CuttingRelay(from_port(port)))
            doors.append(await door.listen(free_ports(1)[0]))
        await self._with_postgres()
        self._managers = CutManagers(self._directory)
        self._stack.push_async_callback(self._managers.close)
        await self._managers.start()
        self.relays[MANAGERS], self._report.pairs[MANAGERS] = self._managers.relays, PairCuts()
        self._stack.push_async_callback(self._rehearsal.stop_all)
        await self._rehearsal.start_all()
        self._consumers = Consumers(self._rehearsal.sites, doors)
        self._stack.push_async_callback(self._consumers.stop)
        self._consumers.start()
        await self._resumed(LINK)
        await self._resumed(SAES)
        await self._resumed(MANAGERS)

    async def _relay(self, pair: str, relay: CuttingRelay) -> CuttingRelay:
        self.relays.setdefault(pair, []).append(relay)
        self._stack.push_async_callback(relay.close)
        self._report.pairs.setdefault(pair, PairCuts())
        return relay

    async def _with_postgres(self) -> None:
        if postgres_programs() is None:
            why = "PostgreSQL is not installed (apt-get install postgresql-15)"
            self._report.not_cut = {FRONT_END: why, OUTBOX: why}
            return
        server = LabPostgres()
        self._stack.callback(server.destroy)
        await asyncio.to_thread(server.create)
        await asyncio.to_thread(server.start)
        toml = self._rehearsal.sites["site_a"]
        texts = []
        plain = toml.read_text(encoding="utf-8")
        for pair, name in ((OUTBOX, "o"), (FRONT_END, "f")):
            place = self._directory / name
            place.mkdir()
            relay = await self._relay(pair, CuttingRelay(from_socket(server.directory / ".s.PGSQL.5432")))
            await relay.listen_unix(place / ".s.PGSQL.5432")
            toml.write_text(plain, encoding="utf-8")
            add_delivery(toml, server.conninfo().replace(str(server.directory), str(place)), self._listen(toml))
            texts.append(toml.read_text(encoding="utf-8"))
        toml.write_text(texts[0], encoding="utf-8")
        own = toml.with_name("FRONT.toml")  # the same site, but for the way to the server
        own.write_text(texts[1], encoding="utf-8")
        await move_keys(toml)
        self._front = FrontEndProcess(own, "fe-1")
        await self._front.start()
        self._stack.push_async_callback(self._front.end, signal.SIGTERM)

    @staticmethod
    def _listen(toml: Path) -> dict[str, str]:
        return {"fe-1": read_site(toml).file.kme.listen}

    async def cut(self, pair: str, chance: random.Random) -> None:
        """Cut a pair once, heal it, and wait until its service is back."""
        found, relays = self._report.pairs[pair], self.relays[pair]
        await asyncio.sleep(chance.uniform(0.0, 0.6))  # any stage of a block, any step of a request
        hard = chance.random() < 0.5
        onward, back = (True, True) if hard else chance.choice(((True, True), (True, False), (False, True)))
        found.cuts += 1
        found.hard += hard
        found.one_way += not (onward and back)
        before = self._fetched(pair)
        for relay in relays:
            relay.cut(hard=hard, onward=onward, back=back)
        await asyncio.sleep(chance.choice(_CUT_S))
        found.served_during += self._fetched(pair) - before
        before, healed = self._fetched(pair), time.monotonic()
        for relay in relays:
            relay.heal()
        try:
            await self._resumed(pair)
            found.resume_s.append(round(time.monotonic() - healed, 3))
        except TimeoutError:
            found.stuck += 1
        found.served_until_resumed += self._fetched(pair) - before

    def _fetched(self, pair: str) -> int:
        return self._managers.fetched if pair == MANAGERS else self._consumers.fetched

    async def _resumed(self, pair: str) -> None:
        """Wait until keys come at both sites, or the link makes a block. Raises TimeoutError."""
        async with asyncio.timeout(_DEADLINE_S):
            if pair == MANAGERS:
                await self._managers.more()
                return
            if pair in {SAES, FRONT_END}:
                await self._consumers.more()
                return
            seen = await self._blocks()
            while await self._blocks() <= seen:  # noqa: ASYNC110  - a question to another process
                await asyncio.sleep(0.02)

    async def _blocks(self) -> int:
        while True:
            try:
                return (await self._rehearsal.status("site_a")).link.blocks
            except HeliographError:
                await asyncio.sleep(0.05)

    async def end(self) -> PartitionReport:
        """Fetch on without a cut, stop, and count."""
        report, consumers = self._report, self._consumers
        for _ in range(10):
            await consumers.more()
        await consumers.stop()
        await self._managers.close()
        report.fetched = consumers.fetched + self._managers.fetched
        report.burnt = consumers.burnt
        report.duplicates = sum(
            count - 1 for side in (*consumers.key_ids, *self._managers.key_ids) for count in Counter(side).values()
        )
        report.disagreements = consumers.disagreements + self._managers.disagreements
        await self._rehearsal.stop_all()
        logs = [self._rehearsal.directory / f"{name}.log" for name in ("site_a", "site_b")]
        logs += [self._front.log] if self._front is not None else []
        for log in logs:
            text = log.read_text(errors="replace")
            report.log_errors += sum(text.count(word) for word in ("Traceback", "internal error", "never retrieved"))
        for pair in report.pairs.values():
            pair.resume_s.sort()
        return report
