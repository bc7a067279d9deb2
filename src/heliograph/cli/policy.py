"""``heliograph site policy``: answer for the key policy of the built-in encryptor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.refusals import refusals
from heliograph.site.config import read_site
from heliograph.site.policy import approve_policy

__all__ = ["policy"]


def policy(
    site: Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")],
    approver: Annotated[str, typer.Option(help="Who answers for it; the audit log keeps the name.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Approve the key policy that SITE.toml gives the built-in encryptor; without, only qkd-only runs."""
    with refusals(as_json=as_json):
        approved = approve_policy(read_site(site), approver)
        print(json.dumps({"policy": approved, "approver": approver}) if as_json else f"approved: {approved}")
