"""``heliograph site add-link``: give a site one more link."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heliograph.authentication.registration import anchor_kinds
from heliograph.cli.refusals import refusals
from heliograph.site.added_link import LinkSetup, add_link
from heliograph.site.config import read_registration, read_site

__all__ = ["add"]

_BRING = {
    "psk": "the key book at {}/psk.book (0600)",
    "pki": "chain, key (0600) and root at {0}/identity/link.pem, {0}/identity/link.key and {0}/identity/root.pem",
    "openpgp": "certificate and key (0600) at {0}/identity/openpgp.asc and {0}/identity/openpgp.key",
}


def add(
    site: Annotated[Path, typer.Argument(metavar="SITE.toml", help="The configuration of the site that gets a link.")],
    registration: Annotated[
        Path, typer.Option(help="link.json as `heliograph site init` wrote it at the other site; it is no secret.")
    ],
    dial: Annotated[str | None, typer.Option(help="host:port of the peer, if this site opens the connection.")] = None,
    listen: Annotated[str | None, typer.Option(help="host:port to listen on, if the peer opens it.")] = None,
    peer_kme: Annotated[
        str | None, typer.Option(help="ID of the peer's key manager; kme- and the peer's name if not given.")
    ] = None,
    module: Annotated[str | None, typer.Option(help="Entry point of the QKD module.")] = None,
    module_address: Annotated[
        str, typer.Option(help="The module's address.")
    ] = "unix:/run/heliograph/further-light.sock",
) -> None:
    """Write a further link into SITE.toml, with a store, an anchor and a trust of its own; it runs after a restart."""
    with refusals():
        agreed = read_registration(registration)
        setup = LinkSetup(agreed, module, {"address": module_address}, dial, listen, peer_kme)
        view = add_link(read_site(site), setup)
        home = view.path(view.file.link.registration).parent
        print(f"{site}: link {agreed.link} to {view.peer} is written. Next: put", end=" ")
        print("; ".join(_BRING[kind].format(home) for kind in anchor_kinds(agreed.bootstrap)) + ",")
        print(f"then `heliograph site register {site}{view.link_option} --approver NAME`, and restart the site.")
        print("The registration's digest must be the same on both sites:")
        print(f"  {agreed.digest().hex()[:32]}")
