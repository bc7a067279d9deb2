"""``heliograph kme-chaos``: faults at every call of the key stores, or malformed requests at the door; what held."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from heliograph.cli.refusals import refusals
from heliograph.lab.chaos import ChaosReport, Plan, run_chaos
from heliograph.lab.malformed_flood import MalformedReport, send_malformed

__all__ = ["kme_chaos"]


def kme_chaos(
    rounds: Annotated[int, typer.Option(min=1, help="Blocks in one run.")] = 10,
    kill_points: Annotated[int, typer.Option(min=0, help="Calls to kill at; 0 for every one.")] = 0,
    images: Annotated[int, typer.Option(min=0, help="Disks after a power loss.")] = 10_000,
    error_points: Annotated[int, typer.Option(min=0, help="Calls to fail; 0 for every one.")] = 0,
    malformed: Annotated[
        int | None,
        typer.Option(min=1, max=100_000_000, help="Instead: send this many malformed ETSI GS QKD 014 requests."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses what a disk has lost, or which requests.")] = 1,
    directory: Annotated[Path | None, typer.Option(help="Where the stores are made; the system's choice.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Break two real stores at every call that changes a file: kill -9, power loss, I/O errors, a full disk.

    With --malformed: send requests to a key manager in this process, without HTTP and TLS; exit code 1 if one was
    answered with a 5xx or with 200, if a key's marker came out, or if a key was lost.
    """
    with refusals(as_json=as_json):
        if malformed is not None:
            answered = asyncio.run(send_malformed(malformed, seed))
            if as_json:
                print(json.dumps({**dataclasses.asdict(answered), "sound": answered.sound}))
            else:
                _print_answers(answered)
            sound = answered.sound
        else:
            report = run_chaos(Plan(rounds, kill_points, images, error_points, seed), directory)
            if as_json:
                print(msgspec.json.encode(report).decode())
            else:
                _print_faults(report)
            sound = report.verdict == "holds"
        if not sound:
            raise typer.Exit(1)


def _print_faults(report: ChaosReport) -> None:
    print(f"{report.calls} calls in {report.rounds} blocks, {report.elapsed_s} s: {report.verdict}")
    for name in ("kill", "torn_kill", "power_loss", "io_error", "disk_full"):
        tally = getattr(report, name)
        print(f"  {name.replace('_', ' ')}: {tally.points} points, {tally.violations} violations")
    for line in report.found:
        print(f"  {line}")


def _print_answers(report: MalformedReport) -> None:
    print(f"{report.requests} malformed requests, in this process, without HTTP and TLS, in {report.seconds} s")
    for status, count in report.statuses.items():
        print(f"  {status}: {count}")
    print(f"server errors: {report.server_errors}; served: {report.served}; keys lost: {report.keys_lost}")
    print(f"markers of keys in answers: {report.canaries_in_answers}; in the log: {report.canaries_in_log}")
    print(f"slowest answer: {report.slowest_s} s; memory grown by {report.grown_kib} KiB")
