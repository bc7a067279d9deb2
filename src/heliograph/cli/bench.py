"""``heliograph bench``: measure one stage and report the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from heliograph.cli.refusals import refusals

__all__ = ["bench"]


def bench(
    stage: Annotated[str | None, typer.Argument(metavar="STAGE", help="What to measure. Default: name them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON document.")] = False,
    pool: Annotated[
        int | None,
        typer.Option(min=1, max=100_000_000, help="With `kme`: a store of so many keys beside one of 100,000."),
    ] = None,
) -> None:
    """Measure one stage on this machine; exit 1 if something that must hold does not.

    `kme` runs the server and its clients on a processor each, and reports what came in a second and what came for each
    second of the server's own processor time. `--pool 10000000` needs 2.2 GB of disk and some
    minutes.
    """
    with refusals(as_json=as_json):
        # Imported here, so that `heliograph --help` is quick.
        from heliograph.lab.benchmarks import STAGES  # noqa: PLC0415

        if stage is None:
            print(json.dumps({"stages": list(STAGES)}) if as_json else "\n".join(STAGES))
            return
        if stage not in STAGES:
            message = f"no stage is named {stage!r}; write one of: {', '.join(STAGES)}"
            print(f"heliograph: {message}", file=sys.stderr)
            if as_json:
                print(json.dumps({"error": {"code": "UnknownStage", "message": message}}))
            raise typer.Exit(2)
        if pool is not None and stage != "kme":
            print("heliograph: --pool belongs to `heliograph bench kme`", file=sys.stderr)
            raise typer.Exit(2)
        report = STAGES[stage]() if pool is None else STAGES[stage](pool=pool)
        print(json.dumps(report) if as_json else _render(report))
        failures = report.get("failures", [])
        for failure in failures:
            print(f"heliograph: {failure}", file=sys.stderr)
        if failures:
            raise typer.Exit(1)


def _figure(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_figure(value)}" for name, value in record.items())


def _render(report: Mapping[str, Any]) -> str:
    """Return any stage's document as lines: its figures, then each result, then each list of records."""
    lines = [f"{report['stage']}"]
    for name, value in report.items():
        if isinstance(value, Mapping):
            lines.append(f"  {name}: {_line(value)}")
        elif isinstance(value, list):
            lines += [f"  {name}: {_line(item)}" for item in value if isinstance(item, Mapping)]
        elif name != "stage":
            lines.append(f"  {name}: {_figure(value)}")
    return "\n".join(lines)
