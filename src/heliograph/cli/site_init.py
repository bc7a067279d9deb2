"""``heliograph site init``: the directory of a new site, from what its operator says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from heliograph.authentication.methods.registry import DEFAULT_METHOD, MACS
from heliograph.authentication.registration import anchor_kinds
from heliograph.cli.kek_options import Kek, Pkcs11Module, Pkcs11Token, Secret
from heliograph.cli.process import harden_process
from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError
from heliograph.site.config import parse_address
from heliograph.site.seal_entry import SealEntry
from heliograph.site.setup import SiteSetup, plan_registration, set_up_site
from heliograph.vault.randomness import SystemRandomness
from heliograph.vault.secret_input import read_secret

__all__ = ["init"]

_NAME_CHARS_MAX = 40  # our choice: a hello carries 64


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
        _check_name("--name", name)
        _check_name("--peer", peer)
        ends = (name, peer) if role == "transmitter" else (peer, name)
        registration = plan_registration(
            f"{ends[0]}--{ends[1]}",
            ends,
            (f"sae-{ends[0]}", f"sae-{ends[1]}"),
            distance_km,
            decoys=decoys,
            key_sizes=tuple(key_size or (256,)),
            bootstrap=bootstrap,
            mac=mac,
            amplification=hash_,
            reconciliation=reconciliation,
        )
        dial, listen = _classical_channel(role, dial, listen)
        parse_address(kme_listen, "--kme-listen")
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
            sae=f"sae-{name}",
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


def _check_name(option: str, text: str) -> None:
    if not 1 <= len(text) <= _NAME_CHARS_MAX or not text.isprintable() or text != text.strip():
        raise ConfigurationError(f"{option} {text!r}: write a name of 1 to {_NAME_CHARS_MAX} printable characters")


def _classical_channel(role: str, dial: str | None, listen: str | None) -> tuple[str | None, str | None]:
    """Return where this site dials and listens, one of them None: an example to change if neither is given."""
    if dial is None and listen is None:
        return ("192.0.2.2:7001", None) if role == "transmitter" else (None, "0.0.0.0:7001")
    for option, address in (("--dial", dial), ("--listen", listen)):
        if address is not None:
            parse_address(address, option)
    if dial is not None and listen is not None:
        raise ConfigurationError("--dial and --listen: give one of them; the other site has the other")
    return dial, listen


def _bring(directory: Path, bootstrap: str) -> str:
    """Return what a person has to put where before the site can run."""
    what = {
        "psk": f"the key book at {directory / 'psk.book'} (0600)",
        "pki": f"chain, key (0600) and root at {directory / 'identity'}/link.pem, link.key and root.pem",
        "openpgp": f"certificate and key (0600) at {directory / 'identity'}/openpgp.asc and openpgp.key",
    }
    return "put " + "; ".join(what[kind] for kind in anchor_kinds(bootstrap))
