"""``heliograph site window`` and ``site compare``: what a link's trust rests on, now and since its bootstrap."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from heliograph.authentication.anchors.words import words
from heliograph.cli.link_option import LinkName
from heliograph.cli.refusals import refusals
from heliograph.cli.register import aloud
from heliograph.errors import ConfigurationError
from heliograph.site.anchors import open_anchors
from heliograph.site.comparison import chain_of, compare_chain, describe_comparison, read_comparison
from heliograph.site.config import SiteConfig, read_site
from heliograph.site.status_socket import read_status
from heliograph.status import LinkStatus

__all__ = ["compare", "window"]

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.toml", help="The running site's configuration.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def _link(config: SiteConfig) -> LinkStatus:
    links = asyncio.run(read_status(config.path(config.file.status))).links
    for link in links:
        if link.link == config.registration.link:
            return link
    raise ConfigurationError(f"{config.toml}: the running site has no link {config.registration.link!r}: restart it")


def _when(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC" if time else "never"


def window(site: SiteFile, link_name: LinkName = None, as_json: Json = False) -> None:
    """Show what the link's keys rest on: how and when trust began, who vouched for the peer, and what came since."""
    with refusals(as_json=as_json):
        config = read_site(site).of_link(link_name)
        link, record = _link(config), open_anchors(config).record
        compared = read_comparison(config, link.epoch, link.chain)
        if as_json:
            document = {
                "link": link.link,
                "peer": link.peer,
                "bootstrap": link.bootstrap,
                "opened_at": link.opened_at,
                "algorithms": list(link.algorithms),
                "mac": config.registration.mac,
                "registered": {"approver": record.approver, "time": record.time, "fingerprint": record.fingerprint},
                "epoch": link.epoch,
                "assurance": link.assurance,
                "blocks": link.epoch_blocks,
                "blocks_in_all": link.blocks,
                "eps_total": link.eps_total,
                "compared": None if compared is None else {"approver": compared.approver, "time": compared.time},
            }
            print(json.dumps(document))
            return
        print(f"{link.link} to {link.peer}: epoch {link.epoch}")
        print(f"  registered by {record.approver}, {_when(record.time)}")
        print(f"  bootstrap {link.bootstrap or 'none yet'}, {_when(link.opened_at)}: {', '.join(link.algorithms)}")
        print(f"  since then {config.registration.mac}: {link.epoch_blocks} blocks; eps {link.eps_total:.2e} in all")
        print(f"  assurance of its keys: {link.assurance or 'none yet'}")
        print(f"  chain compared: {describe_comparison(compared) or 'by nobody; see `heliograph site compare`'}")


def compare(
    site: SiteFile,
    matches: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the other operator reads out: words or hexadecimal.")
    ] = None,
    approver: Annotated[str | None, typer.Option(help="Who compares; needed with --matches.")] = None,
    link_name: LinkName = None,
    as_json: Json = False,
) -> None:
    """Show the link's chain for two people to compare by voice; --matches records that it is equal, or warns."""
    with refusals(as_json=as_json):
        config = read_site(site).of_link(link_name)
        link = _link(config)
        found = read_comparison(config, link.epoch, link.chain)
        if matches is not None:
            if approver is None:
                raise ConfigurationError("--matches needs --approver NAME: the audit log keeps who compared")
            found = compare_chain(config, link, matches, approver)
        elif approver is not None:
            raise ConfigurationError("--approver needs --matches: type what the other operator reads out")
        chain = chain_of(link)
        if as_json:
            document = {
                "link": link.link,
                "epoch": link.epoch,
                "chain": {"words": words(chain), "hex": chain.hex()},
                "compared": None if found is None else {"approver": found.approver, "time": found.time},
            }
            print(json.dumps(document))
            return
        print(f"{link.link}, epoch {link.epoch}. Both sites must show the same:")
        print(aloud(chain))
        said = describe_comparison(found)
        print(f"compared: {said}" if said else "Nobody compared it yet: type what the other side reads with --matches.")
