"""``heliograph site reload``: let a running site take over its changed SITE.toml, and say what came of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError, TransportClosed
from heliograph.site.audit import check_approver
from heliograph.site.config import read_site
from heliograph.site.control_socket import give_order

__all__ = ["reload"]


def reload(
    site: Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")],
    approver: Annotated[str, typer.Option(help="Who answers for the change; the audit log keeps the name.")],
) -> None:
    """Reload a running site's configuration and certificates: all of it, or nothing, with the reason."""
    with refusals():
        try:
            config = read_site(site)
        except ConfigurationError as why:
            raise ConfigurationError(f"nothing was reloaded, the running configuration stays in force: {why}") from None
        who = check_approver(approver).encode()
        try:
            print(asyncio.run(give_order(config, "reload", who)))
        except TransportClosed as why:
            # The running site listens where its own configuration says, not where the changed file does.
            raise TransportClosed(
                f"nothing was reloaded: {why}. If `status` is what changed: put it back, a restart takes it over"
            ) from None
