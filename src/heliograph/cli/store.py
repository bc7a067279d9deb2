"""``heliograph store``: what is done to a site's store while the site is stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.once import Once
from heliograph.cli.process import harden_process
from heliograph.cli.refusals import refusals
from heliograph.site.config import read_site
from heliograph.site.erasure import erase_store
from heliograph.storage.migrations import migrate_store

__all__ = ["app"]

app = typer.Typer(help="Bring a stopped site's store up to this release, or destroy it.", no_args_is_help=True)

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")]


@app.command(cls=Once)
def migrate(site: SiteFile) -> None:
    """Bring an older store up to the schema of this release. Forward only; stop the site first."""
    with refusals():
        config = read_site(site)
        found, now = migrate_store(config.path(config.file.store))
        print(f"schema {now}: nothing to do." if found == now else f"schema {found} brought up to {now}.")


@app.command(cls=Once)
def erase(
    site: SiteFile,
    approver: Annotated[str, typer.Option(help="Who answers for this; the audit log keeps the name.")],
    confirm: Annotated[bool, typer.Option("--yes", help="Every key that waits here is to be destroyed.")] = False,
) -> None:
    """Destroy the key-encryption key and the store: nothing in it, or in a copy of it, opens again."""
    with refusals():
        if not confirm:
            print("heliograph: this destroys every key of the site; to go on, add --yes", file=sys.stderr)
            raise typer.Exit(1)
        harden_process()
        for what in erase_store(read_site(site), approver):
            print(f"destroyed: {what}")
