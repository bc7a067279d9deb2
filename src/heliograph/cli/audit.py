"""``heliograph audit verify``: whether the audit log is what was written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.once import Once
from heliograph.cli.refusals import refusals
from heliograph.site.audit import AuditLog, AuditTampered
from heliograph.site.config import read_site

__all__ = ["app"]

app = typer.Typer(help="Check a site's audit log.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Check a site's audit log."""


@app.command(cls=Once)
def verify(
    path: Annotated[Path, typer.Argument(metavar="SITE.toml|FILE", help="A site, or a copy of its audit log.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Check every line, their order and, with the log's second file, its end; prints the acts and the last digest."""
    with refusals(as_json=as_json):
        of_site = path.suffix == ".toml"
        log = AuditLog(read_site(path).audit if of_site else path)
        try:
            found = log.verify(needs_head=of_site)
        except AuditTampered as why:
            mistaken = "" if of_site else "; or this is no audit log: name SITE.toml or a copy of audit.jsonl"
            raise AuditTampered(
                f"{why}; keep both of the log's files as evidence, and find out who could write there{mistaken}"
            ) from None
        if as_json:
            document = {
                "lines": len(found.entries),
                "head": found.head,
                "end_checked": found.end_checked,
                "entries": [
                    {"sequence": e.sequence, "time": e.time, "event": e.event, "approver": e.approver}
                    for e in found.entries
                ],
            }
            print(json.dumps(document))
            return
        for e in found.entries:
            print(
                f"{e.sequence:4}  {datetime.fromtimestamp(e.time, UTC):%Y-%m-%d %H:%M:%S} UTC  {e.event}, {e.approver}"
            )
        print(f"{len(found.entries)} lines, whole and in order; note the last digest elsewhere:")
        print(f"  {found.head}")
        if not found.end_checked:
            print("Its end is unchecked: the file with the count (.head) is not beside it.")
