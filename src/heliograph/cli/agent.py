"""``heliograph agent``: what an encryptor's agent needs besides its site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.once import Once
from heliograph.cli.refusals import refusals
from heliograph.establishment.messages import PEER_KEY_BYTES
from heliograph.vault.owned_file import create_file
from heliograph.vault.randomness import SystemRandomness

__all__ = ["app"]

app = typer.Typer(help="Make what an encryptor's agent needs besides its site.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.callback()
def _agent() -> None:
    """Make what an encryptor's agent needs besides its site."""


@app.command(cls=Once)
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the key; it must not exist.")],
    as_json: Json = False,
) -> None:
    """Make the secret by which two agents know each other: carry a copy to the other site, out of band."""
    with refusals(as_json=as_json):
        create_file(file, SystemRandomness().draw(PEER_KEY_BYTES), "peer_key")
        print(json.dumps({"peer_key": str(file)}) if as_json else f"{file}: the same file goes to both sites")
