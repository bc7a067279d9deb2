"""``heliograph site unseal`` and ``seal``: give a running site what opens its store, and take it away again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from heliograph.cli.process import harden_process
from heliograph.cli.refusals import refusals
from heliograph.site.config import read_site
from heliograph.site.control_socket import give_order
from heliograph.site.kek import require_secret, secret_of

__all__ = ["seal", "unseal"]

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")]


def unseal(site: SiteFile) -> None:
    """Give a running, sealed site its passphrase or PIN: from where SITE.toml says, or typed."""
    with refusals():
        harden_process()
        config = read_site(site)
        asyncio.run(give_order(config, "unseal", secret_of(config)))
        print(f"{config.file.name}: unsealed.")


def seal(site: SiteFile) -> None:
    """Make a running site forget its keys' key: it answers 503 and distils nothing until it is unsealed."""
    with refusals():
        config = read_site(site)
        require_secret(config)
        asyncio.run(give_order(config, "seal"))
        print(f"{config.file.name}: sealing; done when `heliograph site status` says that it is sealed.")
