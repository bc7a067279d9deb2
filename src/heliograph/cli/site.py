"""``heliograph site``: set up, run and look at one site."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from heliograph.authentication.anchors.psk import book_size, fingerprint, parse_header
from heliograph.cli import add_link, chain, policy, register, reload, seal, site_init, snippet
from heliograph.cli.link_option import LinkName
from heliograph.cli.logs import configure_logs
from heliograph.cli.once import Once
from heliograph.cli.process import harden_process, shorten_pauses
from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError
from heliograph.ports import Vault
from heliograph.site.config import SiteConfig, read_site
from heliograph.site.kek import open_kek_unasked, require_secret
from heliograph.site.operator import rebootstrap as request_rebootstrap
from heliograph.site.status_socket import read_status
from heliograph.status import Budget, LinkStatus, SiteStatus
from heliograph.vault.pskfile import create_book
from heliograph.vault.randomness import SystemRandomness
from heliograph.vault.x509_credential import read_file

__all__ = ["app"]

app = typer.Typer(help="Set up, run and look at one site.", no_args_is_help=True)
app.command("init", cls=Once)(site_init.init)
app.command("add-link", cls=Once)(add_link.add)
app.command("register", cls=Once)(register.register)
app.command("revoke", cls=Once)(register.revoke)
app.command("window", cls=Once)(chain.window)
app.command("compare", cls=Once)(chain.compare)
app.command("policy", cls=Once)(policy.policy)
app.command("snippet", cls=Once)(snippet.print_snippet)
app.command("unseal", cls=Once)(seal.unseal)
app.command("seal", cls=Once)(seal.seal)
app.command("reload", cls=Once)(reload.reload)

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command(cls=Once)
def psk(
    book: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the book; it must not exist.")],
    as_json: Json = False,
) -> None:
    """Make a key book: carry one copy to each site (as psk.book), then destroy this one."""
    with refusals(as_json=as_json):
        mark = create_book(book, SystemRandomness())
        if as_json:
            print(json.dumps({"book": str(book), "fingerprint": mark}))
        else:
            print(f"{book}: 16 slots. Both copies must show this fingerprint:\n  {mark}")


@app.command(cls=Once)
def run(
    site: SiteFile,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="What to log, unless the configuration says it. Default: info."),
    ] = None,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Start sealed, whatever is at hand to open the store.")
    ] = False,
) -> None:
    """Run the site until SIGTERM; SIGHUP reloads SITE.toml. A line of JSON on stdout says when it listens.

    It says whether the site is sealed, too.
    """
    with refusals():
        harden_process()
        follow_level = configure_logs(log_level)
        config = read_site(site)
        follow_level(config.file.log_level)
        if sealed:
            require_secret(config)
        kek = None if sealed else open_kek_unasked(config)
        shorten_pauses()
        if asyncio.run(_run(config, kek, follow_level)):
            # The same process with an empty memory: what Python still held of the keys is gone with it.
            level = [] if log_level is None else ["--log-level", log_level]
            os.execv(sys.executable, [*_command(), "site", "run", str(site), *level, "--sealed"])  # noqa: S606


def _command() -> list[str]:
    return [sys.executable, "-P", "-m", "heliograph.cli.main"]  # -P: nothing is imported from where it was started


async def _run(config: SiteConfig, kek: Vault | None, follow_level: Callable[[str | None], None]) -> bool:
    stop, hung_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)

    async def tell_sealed() -> None:
        print(json.dumps({"ready": True, "sealed": True}), flush=True)

    async def ready() -> None:
        print(json.dumps({"ready": True}), flush=True)

    # Imported here, so that the other commands start without the servers.
    from heliograph.site.sealed import wait_for_unseal  # noqa: PLC0415
    from heliograph.site.site import run_site  # noqa: PLC0415

    kek = kek or await wait_for_unseal(config, tell_sealed, stop)
    return kek is not None and await run_site(config, kek, ready, stop, hung_up, follow_level)


@app.command(cls=Once)
def status(site: SiteFile, as_json: Json = False) -> None:
    """Show a running site's figures; no key material is among them."""
    with refusals(as_json=as_json):
        config = read_site(site)
        found = asyncio.run(read_status(config.path(config.file.status)))
        if as_json:
            print(msgspec.json.encode(found).decode())
            return
        print("\n".join(_lines(found)))


def _lines(found: SiteStatus) -> Iterator[str]:
    """Return a site's figures as lines of plain text."""
    for link in found.links:
        yield f"{found.site}: link {link.link} to {link.peer}: {link.state}"
        yield f"  epoch {link.epoch} by {link.bootstrap or 'none'}: {link.blocks} blocks, {link.blocks_discarded} lost"
        yield f"  secret key {link.secret_key_bits} bits, eps {link.eps_total:.2e}"
        for line in _budget_lines(link):
            yield f"  {line}"
    yield f"  keys to deliver {found.kme.deliverable_keys}, delivered {found.kme.delivered_to_masters}"
    if found.kme.damaged_keys:
        yield f"  ALARM: {found.kme.damaged_keys} keys were altered in the store and set aside; see the log"
    for line in [] if found.agent is None else _agent_lines(found.agent):
        yield f"  {line}"
    if found.configuration.last:
        yield f"  configuration: {found.configuration.last}"


def _agent_lines(agent: dict[str, Any]) -> list[str]:
    """Return what the encryptor does as a few lines of plain text."""
    line = f"encryptor: {agent['mode']}"
    if agent["components"]:
        line += f", key of {', '.join(agent['components'])}"
    line += f"; policy {agent['policy']}, {agent['cipher']}"
    if agent["pad_bytes_left"] is not None:
        line += f", {agent['pad_bytes_left']} bytes of pad left to send"
    return [line] if agent["alarm"] is None else [line, f"ALARM: {agent['alarm']}"]


def _budget_lines(link: LinkStatus) -> list[str]:
    """Return the budget of authentication key as a few lines of plain text."""
    budget = link.budget
    lines = [f"authentication key: {budget.level}, pads for {link.pad_sets} more blocks, {_lasts(budget)}"]
    for name, way in (("to the receiver", budget.to_receiver), ("to the transmitter", budget.to_transmitter)):
        lines.append(
            f"  {name}: {way.bits_left} bits left, {way.bits_reserved} of them reserved for blocks under way; "
            f"bootstrap {way.bits_in}, refilled {way.bits_refilled}, spent {way.bits_spent}, lost {way.bits_lost}"
        )
    return lines


def _lasts(budget: Budget) -> str:
    if budget.seconds_left_without_refill is None:
        return "nothing used lately"
    without = f"{budget.seconds_left_without_refill:.0f} s if refill stops now"
    if budget.seconds_left is None:
        return f"not shrinking; {without}"
    return f"empty in {budget.seconds_left:.0f} s at the rate of the last minutes; {without}"


@app.command(cls=Once)
def rebootstrap(
    site: SiteFile,
    approver: Annotated[str, typer.Option(help="Who answers for this; the audit log keeps the name.")],
    confirm: Annotated[bool, typer.Option("--yes", help="The other site's operator has agreed.")] = False,
    link: LinkName = None,
) -> None:
    """Destroy the link's pads and let the next connection open a new slot of the key book. Stop the site first."""
    with refusals():
        if not confirm:
            print(
                "heliograph: this reopens the bootstrap; agree with the other operator, then add --yes", file=sys.stderr
            )
            raise typer.Exit(1)
        epoch = request_rebootstrap(read_site(site).of_link(link), approver)
        print(f"The next connection opens epoch {epoch}; do the same on the other site.")


@app.command(cls=Once)
def book(path: Annotated[Path, typer.Argument(metavar="FILE", help="An unused key book.")]) -> None:
    """Show an unused key book's fingerprint, to compare two copies by voice."""
    with refusals():
        content = read_file(path, "key book", 2 * book_size())
        try:
            parse_header(content)
        except ConfigurationError as why:
            raise ConfigurationError(f"{path}: {why}") from None
        print(fingerprint(content))
