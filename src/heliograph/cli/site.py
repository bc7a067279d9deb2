"""``heliograph site``: set up, run and look at one site."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from heliograph.authentication.anchors.psk import book_size, fingerprint, parse_header
from heliograph.authentication.methods.registry import DEFAULT_METHOD, MACS
from heliograph.authentication.registration import anchor_kinds
from heliograph.cli import add_link, chain, policy, register, reload, seal, snippet
from heliograph.cli.kek_options import Kek, Pkcs11Module, Pkcs11Token, Secret
from heliograph.cli.link_option import LinkName
from heliograph.cli.logs import configure_logs
from heliograph.cli.once import Once
from heliograph.cli.process import harden_process, shorten_pauses
from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError
from heliograph.ports import Vault
from heliograph.site.config import SiteConfig, parse_address, read_site
from heliograph.site.kek import open_kek_unasked, require_secret
from heliograph.site.operator import rebootstrap as request_rebootstrap
from heliograph.site.seal_entry import SealEntry
from heliograph.site.setup import SiteSetup, plan_registration, set_up_site
from heliograph.site.status_socket import read_status
from heliograph.status import Budget, LinkStatus
from heliograph.vault.pskfile import create_book
from heliograph.vault.randomness import SystemRandomness
from heliograph.vault.secret_input import read_secret
from heliograph.vault.x509_credential import read_file

__all__ = ["app"]

_NAME_CHARS_MAX = 40  # our choice: a hello carries 64

app = typer.Typer(help="Set up, run and look at one site.", no_args_is_help=True)
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
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The site's directory; made if absent.")],
    name: Annotated[str, typer.Option(help="This site's name.")],
    peer: Annotated[str, typer.Option(help="The other site's name.")],
    role: Annotated[Literal["transmitter", "receiver"], typer.Option(help="Which end of the light this site has.")],
    distance_km: Annotated[float, typer.Option(help="Length of the fibre; the same number on both sites.")] = 25.0,
    decoys: Annotated[int, typer.Option(help="Decoy intensities, 1 or 2; the same number on both sites.")] = 1,
    key_size: Annotated[
        list[int] | None,
        typer.Option(
            help="Bits of a key, a multiple of 8 from 64 to 4096; 256 if not given. Given several times, there are "
            "keys of each size, the first for whoever names none. The same on both sites.",
            show_default=False,
        ),
    ] = None,
    bootstrap: Annotated[
        Literal["psk", "pki", "openpgp", "psk+pki", "psk+openpgp"],
        typer.Option(help="What trust starts from; the same on both sites."),
    ] = "psk",
    mac: Annotated[
        str, typer.Option(help=f"What authenticates the blocks after it: {', '.join(MACS)}; the same on both sites.")
    ] = DEFAULT_METHOD.name,
    hash_: Annotated[
        Literal["modified-multiply-shift", "toeplitz"],
        typer.Option("--hash", help="The family privacy amplification takes its hash from; the same on both sites."),
    ] = "modified-multiply-shift",
    reconciliation: Annotated[
        Literal["cascade", "ldpc"],
        typer.Option(help="How errors are found: cascade, or one way by ldpc codes; the same on both sites."),
    ] = "cascade",
    dial: Annotated[str | None, typer.Option(help="host:port of the peer, if this site opens the connection.")] = None,
    listen: Annotated[str | None, typer.Option(help="host:port to listen on, if the peer opens it.")] = None,
    kme_listen: Annotated[str, typer.Option(help="host:port of this site's key manager.")] = "127.0.0.1:8443",
    module: Annotated[str | None, typer.Option(help="Entry point of the QKD module.")] = None,
    module_address: Annotated[str, typer.Option(help="The module's address.")] = "unix:/run/heliograph/light.sock",
    kek: Kek = "file",
    secret: Secret = "terminal",  # noqa: S107  - where it comes from, not what it is
    pkcs11_module: Pkcs11Module = None,
    pkcs11_token: Pkcs11Token = None,
) -> None:
    """Set up a site: its secrets, a small certificate authority, link.json, SITE.toml; not what trust starts from."""
    with refusals():
        harden_process()
        for entry, text in (("--name", name), ("--peer", peer)):
            if not 1 <= len(text) <= _NAME_CHARS_MAX or not text.isprintable() or text != text.strip():
                raise ConfigurationError(
                    f"{entry} {text!r}: write a name of 1 to {_NAME_CHARS_MAX} printable characters"
                )
        ends = (name, peer) if role == "transmitter" else (peer, name)
        saes = (f"sae-{ends[0]}", f"sae-{ends[1]}")
        registration = plan_registration(
            f"{ends[0]}--{ends[1]}",
            ends,
            saes,
            distance_km,
            decoys=decoys,
            key_sizes=tuple(key_size or (256,)),
            bootstrap=bootstrap,
            mac=mac,
            amplification=hash_,
            reconciliation=reconciliation,
        )
        if dial is None and listen is None:
            dial, listen = ("192.0.2.2:7001", None) if role == "transmitter" else (None, "0.0.0.0:7001")
        for entry, address in (("--kme-listen", kme_listen), ("--dial", dial), ("--listen", listen)):
            if address is not None:
                parse_address(address, entry)
        if dial is not None and listen is not None:
            raise ConfigurationError("--dial and --listen: give one of them; the other site has the other")
        own_sae = f"sae-{name}"
        seal_entry = SealEntry(
            kek, secret, None if pkcs11_module is None else str(pkcs11_module.absolute()), pkcs11_token
        )
        seal_entry.check()
        setup = SiteSetup(
            name=name,
            role=role,
            kme_id=f"kme-{name}",
            peer_kme_id=f"kme-{peer}",
            kme_listen=kme_listen,
            sae=own_sae,
            module=module or f"simulated-{role}",
            module_settings={"address": module_address},
            dial=dial,
            listen=listen,
            seal=seal_entry,
        )
        path = set_up_site(
            directory,
            setup,
            registration,
            SystemRandomness(),
            lambda: read_secret(secret, seal_entry.what, again=kek == "passphrase"),
        )
        print(f"{path}: written. Next: {_bring(directory, bootstrap)}, check SITE.toml,")
        print(f"then `heliograph site register {path} --approver NAME` (its --help says with which files),")
        print(f"and `heliograph site run {path}`.")
        print("The registration's digest must be the same on both sites:")
        print(f"  {registration.digest().hex()[:32]}")


def _bring(directory: Path, bootstrap: str) -> str:
    """Return what a person has to put where before the site can run."""
    what = {
        "psk": f"the key book at {directory / 'psk.book'} (0600)",
        "pki": f"chain, key (0600) and root at {directory / 'identity'}/link.pem, link.key and root.pem",
        "openpgp": f"certificate and key (0600) at {directory / 'identity'}/openpgp.asc and openpgp.key",
    }
    return "put " + "; ".join(what[kind] for kind in anchor_kinds(bootstrap))


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
        for link in found.links:
            print(f"{found.site}: link {link.link} to {link.peer}: {link.state}")
            lost = f"{link.blocks} blocks, {link.blocks_discarded} lost"
            print(f"  epoch {link.epoch} by {link.bootstrap or 'none'}: {lost}")
            print(f"  secret key {link.secret_key_bits} bits, eps {link.eps_total:.2e}")
            for line in _budget_lines(link):
                print(f"  {line}")
        print(f"  keys to deliver {found.kme.deliverable_keys}, delivered {found.kme.delivered_to_masters}")
        if found.kme.damaged_keys:
            print(f"  ALARM: {found.kme.damaged_keys} keys were altered in the store and set aside; see the log")
        for line in [] if found.agent is None else _agent_lines(found.agent):
            print(f"  {line}")
        if found.configuration.last:
            print(f"  configuration: {found.configuration.last}")


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
        parse_header(content)
        print(fingerprint(content))
