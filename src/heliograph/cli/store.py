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
from heliograph.site.kek import open_kek
from heliograph.storage.migrations import migrate_store

__all__ = ["app"]

app = typer.Typer(
    help="Bring a stopped site's store up to this release, move its keys, or destroy it.", no_args_is_help=True
)

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")]


@app.command(cls=Once)
def migrate(site: SiteFile) -> None:
    """Bring an older store up to the schema of this release. Forward only; stop the site first."""
    with refusals():
        config = read_site(site)
        for view in config.links:
            found, now = migrate_store(view.path(view.file.store))
            of = f"link {view.registration.link}: " if view.is_view else ""
            print(f"{of}schema {now}: nothing to do." if found == now else f"{of}schema {found} brought up to {now}.")


@app.command(cls=Once)
def move(site: SiteFile) -> None:
    """Make the tables of the delivery server if there are none, and move the site's keys there. Stop the site first."""
    with refusals():
        harden_process()
        # Imported here, as below, so that the other commands start without the servers.
        from heliograph.site.delivery_server import move_store  # noqa: PLC0415

        moved, new = move_store(read_site(site))
        print("The delivery server has its tables now." if new else "The delivery server had its tables already.")
        print(f"{moved} keys moved.")


@app.command(cls=Once)
def reopen(
    site: SiteFile,
    front_end: Annotated[str, typer.Option("--front-end", help="The front end that refused; it must be stopped.")],
    approver: Annotated[str, typer.Option(help="Who answers for this; the audit log keeps the name.")],
    confirm: Annotated[bool, typer.Option("--yes", help="Every key in the server is to be destroyed.")] = False,
) -> None:
    """After the delivery server turned out to be an old copy: destroy its keys, and let it be used again."""
    with refusals():
        if not confirm:
            print("heliograph: this destroys every key in the delivery server; to go on, add --yes", file=sys.stderr)
            raise typer.Exit(1)
        harden_process()
        from heliograph.site.front_end import reopen_front_end  # noqa: PLC0415

        config = read_site(site)
        destroyed = reopen_front_end(config, open_kek(config), front_end, approver)
        print(f"{destroyed} keys destroyed; start the front end {front_end} again.")


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
