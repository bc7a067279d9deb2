"""``heliograph site snippet``: this site's configuration for an encryptor of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.refusals import refusals
from heliograph.site.config import read_site
from heliograph.site.snippet_texts import TEXTS
from heliograph.site.snippets import snippet

__all__ = ["print_snippet"]


def print_snippet(
    site: Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")],
    device: Annotated[str, typer.Option("--for", help=f"The kind of device: {', '.join(TEXTS)}.")],
    sae: Annotated[str | None, typer.Option(help="The device's SAE ID; \\[agent]'s without it.")] = None,
    peer_sae: Annotated[str | None, typer.Option(help="The SAE ID of the device at the other site.")] = None,
    address: Annotated[str | None, typer.Option(help="Where devices reach this site's key manager.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Print the configuration of a device that takes this site's keys. No key is in it."""
    with refusals(as_json=as_json):
        text = snippet(read_site(site), device, sae, peer_sae, address)
        print(json.dumps({"for": device, "text": text}) if as_json else text, end="\n" if as_json else "")
