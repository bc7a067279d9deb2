"""``heliograph kme-chaos --postgresql N``: the delivery server fails at every message, its disk is full, it is killed.

Two sites commit, reserve, deliver, burn and sweep over a real PostgreSQL server, and a proxy lets one thing go wrong in
each round (``pg_fault_rounds``); then one front end as a process is asked over mutual TLS while the same goes on behind
it (``pg_door_faults``). The server logs every statement with its parameters, and its log is searched for keys.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from heliograph.lab.pg_door_faults import DoorReport, ask_under_faults
from heliograph.lab.pg_fault_rounds import Rounds
from heliograph.lab.pg_full_disk import FullServer, ballast
from heliograph.lab.pg_proxy import Fault, What
from heliograph.lab.postgres import LabPostgres
from heliograph.lab.tmpfs import why_no_disk

__all__ = ["ERRORS", "LOGGING", "PgFaultReport", "PgPlan", "PgTally", "run_pg_faults", "try_kills", "try_points"]

# PostgreSQL 15, appendix A; the last ends the session.
ERRORS: Final = {
    "53100": "disk_full",
    "58030": "io_error",
    "53200": "out_of_memory",
    "40001": "serialization_failure",
    "57P01": "admin_shutdown",
}
# Everything that a log can show, as an administrator may set it.
LOGGING: Final = (
    "log_statement = 'all'",
    "log_min_error_statement = 'debug5'",
    "log_min_duration_statement = 0",
    "log_parameter_max_length = -1",
    "log_parameter_max_length_on_error = -1",
    "log_error_verbosity = 'verbose'",
)
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class PgPlan:
    """How much to do. ``points``: messages to break, evenly chosen of all; the others: so many of each."""

    points: int
    kills: int
    full_disks: int
    answers: int
    seed: int = 1

    @classmethod
    def of(cls, points: int, seed: int) -> PgPlan:
        """Return what goes with so many points."""
        return cls(points, max(2, points // 20), max(4, points // 20), max(5, points // 4), seed)


@dataclass
class PgTally:
    """One kind of fault: how often it came, how often a step was refused, and how often something did not hold."""

    points: int = 0
    refused: int = 0
    violations: int = 0


@dataclass
class PgFaultReport:
    """``messages``, ``requests``: of one round without a fault. ``burnt``: keys that left and reached nobody.

    ``found``: the first things that did not hold.
    """

    messages: int = 0
    requests: int = 0
    tallies: dict[str, PgTally] = field(default_factory=dict)
    delivered: int = 0
    burnt: int = 0
    key_in_logs: int = 0
    sealed_in_logs: int = 0
    door: DoorReport | None = None
    not_tried: dict[str, str] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        wrong = sum(tally.violations for tally in self.tallies.values()) + self.key_in_logs + self.sealed_in_logs
        return not wrong and (self.door is None or self.door.sound)

    def play(
        self, rounds: Rounds, name: str, fault: Fault, metadata: str = "{}", mend: Callable[[], None] | None = None
    ) -> None:
        """Play one round and count it. One that its fault did not reach is no point."""
        seen = rounds.run(fault, metadata, mend)
        tally = self.tallies.setdefault(name, PgTally())
        tally.points += seen.fired
        tally.refused += seen.fired and seen.refused
        tally.violations += bool(seen.wrong)
        self.delivered += seen.delivered
        self.burnt += seen.burnt
        self.found += [f"{name} at {fault.at}: {text}" for text in seen.wrong]
        del self.found[_SHOWN:]

    def search(self, rounds: Rounds) -> None:
        """Search the server's log for the keys of these rounds."""
        found = rounds.marks.search(rounds.server.directory / "log")
        self.key_in_logs += found["key"]
        self.sealed_in_logs += found["sealed"]


def run_pg_faults(plan: PgPlan) -> PgFaultReport:
    """Do all of it. Raises ConfigurationError without PostgreSQL, or if a server stays away."""
    began, report = time.monotonic(), PgFaultReport()
    with _server() as (directory, server):
        server.create()
        server.set(*LOGGING)
        server.start()
        with _rounds(directory, server, plan.seed) as rounds:
            try_points(report, rounds, plan)
            try_kills(report, rounds, plan)
            report.search(rounds)
        report.door = asyncio.run(ask_under_faults(plan.answers, plan.seed, directory / "door", server, ERRORS))
    _try_full_disks(report, plan)
    report.seconds = round(time.monotonic() - began, 1)
    return report


def try_points(report: PgFaultReport, rounds: Rounds, plan: PgPlan) -> None:
    """Play one round without a fault, which is measured, and ``plan.points`` rounds with one."""
    chance = Random(plan.seed)  # noqa: S311  - a laboratory's choice, no secret
    report.play(rounds, "no fault", Fault(What.NOTHING))
    report.messages, report.requests = rounds.messages, rounds.requests
    every = list(_points(report.messages, report.requests))
    for number in range(plan.points):
        name, what, at, code = every[number * len(every) // plan.points % len(every)]
        # Whoever is cut off tries again; at times nobody listens yet.
        away = chance.choice((0, 0, 1, 4)) if what is not What.ERROR else 0
        report.play(rounds, name, Fault(what, at, away, code=code, fatal=code == "57P01"))


def _points(messages: int, requests: int) -> Iterator[tuple[str, What, int, str]]:
    """Yield every fault that there is: (kind, what, at, code)."""
    for what in (What.CUT_BEFORE, What.CUT_AFTER):
        yield from ((what.value, what, at, "") for at in range(1, messages + 1))
    yield from ((What.CUT_ANSWER.value, What.CUT_ANSWER, at, "") for at in range(1, requests + 1))
    for code, name in ERRORS.items():
        yield from ((f"error {code} {name}", What.ERROR, at, code) for at in range(1, requests + 1))


def try_kills(report: PgFaultReport, rounds: Rounds, plan: PgPlan) -> None:
    """Kill the session's process and, for every other point, the whole server, before, while and after it works."""
    whens = (What.ACT_BEFORE, What.ACT_DURING, What.ACT_AFTER)

    def backend(process: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)

    def everything(_: int) -> None:
        rounds.server.kill()

    for number in range(plan.kills):
        name, act = (("kill -9 of a backend", backend), ("kill -9 of the server", everything))[number % 2]
        at = 1 + number * report.requests // plan.kills
        report.play(rounds, name, Fault(whens[number // 2 % 3], at, act=act))


def _try_full_disks(report: PgFaultReport, plan: PgPlan) -> None:
    """Fill the data's disk and that of the server's own log, at a request of each round; free it after the round."""
    if why := why_no_disk():
        report.not_tried["full disk"] = why
        return
    for wal in (False, True):
        name, number = f"full disk: {'WAL' if wal else 'data'}", (plan.full_disks + 1 - wal) // 2
        with _server() as (directory, server), FullServer(server, wal=wal) as full:
            full.start(*LOGGING)
            with _rounds(directory, server, plan.seed) as rounds:
                full.leave_no_room(rounds.databases)
                report.play(rounds, name, Fault(What.NOTHING), ballast())
                requests = rounds.requests
                for one in range(number):
                    fault = Fault(What.ACT_BEFORE, 1 + one * requests // max(1, number), act=full.fill)
                    report.play(rounds, name, fault, ballast(), full.free)
                report.search(rounds)


@contextmanager
def _server() -> Iterator[tuple[Path, LabPostgres]]:
    """Give a directory for sites, and a server that is not made yet; both go at the end."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="hgp"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server = LabPostgres()
        stack.callback(server.destroy)
        yield directory, server


@contextmanager
def _rounds(directory: Path, server: LabPostgres, seed: int) -> Iterator[Rounds]:
    rounds = Rounds(directory, server, seed)
    try:
        yield rounds
    finally:
        rounds.close()
