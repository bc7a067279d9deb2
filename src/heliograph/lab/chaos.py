"""``heliograph kme-chaos``: kill, power loss, I/O errors and full disks at every call, over the real stores."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.lab.chaos_sites import ROUNDS_MAX, Facts, check_sites, make_sites, play
from heliograph.lab.crash_images import Disk
from heliograph.lab.disk_faults import Call, DiskFaults, Fault, build_shim, read_trace

__all__ = ["ChaosReport", "Plan", "Tally", "run_chaos"]

_SHOWN = 10


class Plan(msgspec.Struct, frozen=True):
    """How much to do. ``*_points``: calls to break, evenly chosen; 0 for every one. ``plant``: see ``play``."""

    rounds: int = 10
    kill_points: int = 0
    images: int = 10_000
    error_points: int = 0
    seed: int = 1
    plant: str = ""


class Tally(msgspec.Struct):
    """One kind of fault: how often, and how often something did not hold afterwards."""

    points: int = 0
    violations: int = 0


class ChaosReport(msgspec.Struct):
    """``calls``: calls of one run that change a file; ``found``: the first things that did not hold."""

    calls: int
    rounds: int
    kill: Tally
    torn_kill: Tally
    power_loss: Tally
    io_error: Tally
    disk_full: Tally
    found: list[str]
    elapsed_s: float
    verdict: str


def run_chaos(plan: Plan, directory: Path | None = None) -> ChaosReport:
    """Run in a process of its own, which has the fault library loaded. ``directory``: where the stores are made.

    Raises ConfigurationError without a C compiler, or if that process fails.
    """
    if not 1 <= plan.rounds <= ROUNDS_MAX:
        raise ConfigurationError(f"rounds = {plan.rounds}: between 1 and {ROUNDS_MAX}")
    with tempfile.TemporaryDirectory(prefix="heliograph-chaos-", dir=directory) as name:
        library = build_shim(Path(name))
        command = [sys.executable, "-m", "heliograph.lab.chaos", name, msgspec.json.encode(plan).decode()]
        child = subprocess.Popen(  # noqa: S603  - our own program
            command,
            env={"LD_PRELOAD": str(library)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
        )
        try:
            out, err = child.communicate()
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # with the process that it breaks just now
            child.communicate()
            raise
        try:
            return msgspec.json.decode(out, type=ChaosReport)
        except msgspec.MsgspecError:
            words = err.strip().splitlines() or ["it said nothing"]
            raise ConfigurationError(f"kme-chaos: status {child.returncode}: {words[-1]}") from None


@dataclass
class _Campaign:
    plan: Plan
    root: Path
    faults: DiskFaults
    found: list[str] = field(default_factory=list)

    @property
    def _base(self) -> Path:
        return self.root / "base"

    @property
    def _work(self) -> Path:
        return self.root / "work"

    def run(self) -> ChaosReport:
        began = time.monotonic()
        make_sites(self._base)
        calls = self._broken(Fault.NONE, 0)
        changing = [call for call in calls if call.kind != "m"]
        total = len(changing)
        at = self._points(range(1, total + 1), self.plan.kill_points)
        grows = [i for i, call in enumerate(changing, 1) if call.kind == "w"]
        torn = self._points(grows, self.plan.kill_points)
        errors = self._points(range(1, total + 1), self.plan.error_points)
        full = self._points(grows, self.plan.error_points)
        tallies = [
            self._every(fault, points)
            for fault, points in ((Fault.KILL, at), (Fault.KILL_TORN, torn), (Fault.EIO, errors), (Fault.FULL, full))
        ]
        images = self._images(calls)
        wrong = images.violations + sum(tally.violations for tally in tallies)
        return ChaosReport(
            calls=total,
            rounds=self.plan.rounds,
            kill=tallies[0],
            torn_kill=tallies[1],
            power_loss=images,
            io_error=tallies[2],
            disk_full=tallies[3],
            found=self.found[:_SHOWN],
            elapsed_s=round(time.monotonic() - began, 1),
            verdict="fails" if wrong else "holds",
        )

    @staticmethod
    def _points(every: Iterable[int], wanted: int) -> list[int]:
        every = list(every)
        return every if not 0 < wanted < len(every) else [every[i * len(every) // wanted] for i in range(wanted)]

    def _fresh(self, fill: Callable[[], object]) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        fill()

    def _broken(self, fault: Fault, at: int) -> list[Call]:
        """Play once with one fault, in a child. Returns its calls and marks."""
        self._fresh(lambda: shutil.copytree(self._base, self._work))
        trace = self.root / "trace"
        descriptor = os.open(trace, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.faults.arm(self._work, fault, at, descriptor)
                play(self._work, self.plan.rounds, self.faults.mark, self.plan.plant)
                status = 0
            finally:
                os._exit(status)
        os.close(descriptor)
        _, how = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(how) and os.WTERMSIG(how) == 9
        if fault in {Fault.KILL, Fault.KILL_TORN} and not killed:
            self.found.append(f"call {at}: the process was not killed: status {how}")
        return list(read_trace(trace.read_bytes()))

    def _judge(self, calls: Iterable[Call], where: str) -> int:
        facts = Facts()
        for call in calls:
            if call.kind == "m":
                facts.take(call.data.decode())
        wrong = check_sites(self._work, self.plan.rounds, facts)
        self.found += [f"{where}: {text}" for text in wrong]
        return int(bool(wrong))

    def _every(self, fault: Fault, points: list[int]) -> Tally:
        tally = Tally()
        for at in points:
            calls = self._broken(fault, at)
            tally.points += 1
            tally.violations += self._judge(calls, f"{fault.name} at call {at}")
        return tally

    def _images(self, calls: list[Call]) -> Tally:
        """Lose power before each call of the run that went well, several times over, each time with another disk."""
        tally, chance = Tally(), Random(self.plan.seed)  # noqa: S311  - a laboratory's choice, no secret
        self._fresh(lambda: shutil.copytree(self._base, self._work))
        disk = Disk(self._work)
        cuts = [number for number, call in enumerate(calls) if call.kind != "m"]
        for position, number in enumerate(cuts):
            begin = cuts[position - 1] if position else 0
            for call in calls[begin:number]:
                if call.kind != "m":
                    disk.apply(call)
            share = self.plan.images * (position + 1) // len(cuts) - self.plan.images * position // len(cuts)
            for _ in range(share):
                self._fresh(lambda: disk.image(self._work, chance))
                tally.points += 1
                tally.violations += self._judge(calls[:number], f"power lost before call {position + 1}")
        return tally


def _main() -> None:
    root, plan = Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Plan)
    print(msgspec.json.encode(_Campaign(plan, root, DiskFaults()).run()).decode())  # noqa: T201  - for the parent


if __name__ == "__main__":
    _main()
