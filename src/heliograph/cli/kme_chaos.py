"""``heliograph kme-chaos``: faults at every call of the key stores, and what held."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from heliograph.cli.refusals import refusals
from heliograph.lab.chaos import Plan, run_chaos

__all__ = ["kme_chaos"]


def kme_chaos(
    rounds: Annotated[int, typer.Option(min=1, help="Blocks in one run.")] = 10,
    kill_points: Annotated[int, typer.Option(min=0, help="Calls to kill at; 0 for every one.")] = 0,
    images: Annotated[int, typer.Option(min=0, help="Disks after a power loss.")] = 10_000,
    error_points: Annotated[int, typer.Option(min=0, help="Calls to fail; 0 for every one.")] = 0,
    seed: Annotated[int, typer.Option(help="Chooses what a disk has lost.")] = 1,
    directory: Annotated[Path | None, typer.Option(help="Where the stores are made; the system's choice.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Break two real stores at every call that changes a file: kill -9, power loss, I/O errors, a full disk."""
    with refusals(as_json=as_json):
        report = run_chaos(Plan(rounds, kill_points, images, error_points, seed), directory)
        if as_json:
            print(msgspec.json.encode(report).decode())
        else:
            print(f"{report.calls} calls in {report.rounds} blocks, {report.elapsed_s} s: {report.verdict}")
            for name in ("kill", "torn_kill", "power_loss", "io_error", "disk_full"):
                tally = getattr(report, name)
                print(f"  {name.replace('_', ' ')}: {tally.points} points, {tally.violations} violations")
            for line in report.found:
                print(f"  {line}")
        if report.verdict != "holds":
            raise typer.Exit(1)
