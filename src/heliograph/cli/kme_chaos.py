"""``heliograph kme-chaos``: malformed requests against the key manager's door, counted."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Annotated

import typer

from heliograph.cli.refusals import refusals
from heliograph.lab.kme_chaos import ChaosReport, send_malformed

__all__ = ["kme_chaos"]


def kme_chaos(
    malformed: Annotated[
        int, typer.Option("--malformed", min=1, max=100_000_000, help="How many requests to send.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which requests; the same seed sends the same ones.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON document.")] = False,
) -> None:
    """Send malformed ETSI GS QKD 014 requests to a key manager in this process, without HTTP and TLS.

    Exit code 1 if one was answered with a 5xx or with 200, if a key's marker came out, or if a key was lost.
    """
    with refusals(as_json=as_json):
        report = asyncio.run(send_malformed(malformed, seed))
        if as_json:
            print(json.dumps({**dataclasses.asdict(report), "sound": report.sound}))
        else:
            _print(report)
        if not report.sound:
            raise typer.Exit(1)


def _print(report: ChaosReport) -> None:
    print(f"{report.requests} malformed requests, in this process, without HTTP and TLS, in {report.seconds} s")
    for status, count in report.statuses.items():
        print(f"  {status}: {count}")
    print(f"server errors: {report.server_errors}; served: {report.served}; keys lost: {report.keys_lost}")
    print(f"markers of keys in answers: {report.canaries_in_answers}; in the log: {report.canaries_in_log}")
    print(f"slowest answer: {report.slowest_s} s; memory grown by {report.grown_kib} KiB")
