"""``heliograph sae``: what a consumer of keys asks its own site's key manager (ETSI GS QKD 014)."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from heliograph.cli.once import Once
from heliograph.cli.process import harden_process
from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError, KeySupplyError
from heliograph.kme.groups import LOCAL_UNFETCHED_MAX, name_slaves
from heliograph.sae import Sae
from heliograph.types import DeliveredKey

__all__ = ["app"]

_ROOM_BYTES = 512  # our choice: more than one key of 256 bits takes in any form; other sizes extend the file

app = typer.Typer(help="Fetch keys from a key manager as one of its consumers.", no_args_is_help=True)

Peer = Annotated[str, typer.Argument(metavar="PEER_SAE", help="The SAE at the other site.")]
Url = Annotated[str | None, typer.Option(help="https://host:port of this site's key manager.")]
Socket = Annotated[Path | None, typer.Option(help="Its Unix socket, in place of --url and certificates.")]
Cert = Annotated[Path | None, typer.Option(help="This SAE's certificate (PEM).")]
Key = Annotated[Path | None, typer.Option(help="Its private key (PEM, mode 0600).")]
Ca = Annotated[Path | None, typer.Option(help="The CA of the site that runs the key manager (PEM).")]
Kme = Annotated[str | None, typer.Option(help="The KME ID that its certificate must have.")]
Size = Annotated[int | None, typer.Option(min=8, help="Bits of each key; the key manager's own size if not given.")]
Out = Annotated[Path | None, typer.Option(help="New file for the keys, mode 0600.")]
Stdout = Annotated[bool, typer.Option("--stdout", help="Write the keys to standard output.")]
Form = Annotated[
    Literal["container", "raw"], typer.Option("--format", help="The standard's JSON, or the bytes one after another.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output; without the keys.")]


def _check_way(
    url: str | None, socket: Path | None, files: tuple[Path | None, Path | None, Path | None], kme: str | None
) -> None:
    if (url is None) == (socket is None):
        raise typer.BadParameter("give one of --url and --socket")
    if socket is not None and (any(files) or kme is not None):
        raise typer.BadParameter("--socket takes no --cert, --key, --ca and --kme: the system says who asks")
    if url is not None and files[2] is None:
        raise typer.BadParameter("--url needs --ca: the key manager is believed by its certificate alone")


def _open(
    peer: str,
    url: str | None,
    socket: Path | None,
    files: tuple[Path | None, Path | None, Path | None],
    kme: str | None,
    size: int | None = None,
) -> Sae:
    harden_process()
    certificate, key, ca = files
    if socket is not None:
        return Sae.over_socket(socket, peer, size_bits=size)
    assert url is not None
    assert ca is not None
    return Sae.over_tls(url, peer, certificate=certificate, key=key, ca=ca, kme=kme, size_bits=size)


@app.command(cls=Once)
def status(
    peer: Peer,
    url: Url = None,
    socket: Socket = None,
    cert: Cert = None,
    key: Key = None,
    ca: Ca = None,
    kme: Kme = None,
    as_json: Json = False,
) -> None:
    """Show how many keys wait for the pair, and what the key manager serves."""
    _check_way(url, socket, (cert, key, ca), kme)
    with refusals(as_json=as_json), _open(peer, url, socket, (cert, key, ca), kme) as sae:
        found = sae.status()
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    print(f"{found.source_kme}: {found.stored_key_count} keys for {found.caller_sae} with {found.peer_sae}")
    print(f"  of {found.key_size_bits} bits; at most {found.max_key_per_request} in a request")
    others = {size: number for size, number in found.stored_by_size.items() if size != found.key_size_bits}
    for size, number in sorted(others.items()):
        print(f"  {number} of {size} bits: --size {size}")
    if found.unfetched:
        print(f"  not fetched yet: {name_slaves(found.unfetched)}; beyond {LOCAL_UNFETCHED_MAX} nobody gets more")


@app.command(cls=Once)
def get(
    peer: Peer,
    number: Annotated[int, typer.Option(min=1, max=100_000_000, help="How many keys.")] = 1,
    out: Out = None,
    stdout: Stdout = False,
    form: Form = "container",
    url: Url = None,
    socket: Socket = None,
    cert: Cert = None,
    key: Key = None,
    ca: Ca = None,
    kme: Kme = None,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Fetch fresh keys as master; the peer needs their key_IDs, which are not secret."""
    _check_place(out, stdout, as_json)
    _check_way(url, socket, (cert, key, ca), kme)
    with refusals(as_json=as_json), _open(peer, url, socket, (cert, key, ca), kme, size) as sae:
        keys = _fetched(lambda: sae.get(number), number, out, form)
    _report(keys, out, form, as_json=as_json)


@app.command("get-with-ids", cls=Once)
def get_with_ids(
    peer: Peer,
    key_ids: Annotated[list[str], typer.Argument(metavar="KEY_ID...", help="What the peer named.")],
    out: Out = None,
    stdout: Stdout = False,
    form: Form = "container",
    url: Url = None,
    socket: Socket = None,
    cert: Cert = None,
    key: Key = None,
    ca: Ca = None,
    kme: Kme = None,
    size: Size = None,
    as_json: Json = False,
) -> None:
    """Fetch, as slave, the keys that the peer named; all or none."""
    _check_place(out, stdout, as_json)
    _check_way(url, socket, (cert, key, ca), kme)
    with refusals(as_json=as_json), _open(peer, url, socket, (cert, key, ca), kme, size) as sae:
        keys = _fetched(lambda: sae.get_with_ids(key_ids), len(key_ids), out, form)
    _report(keys, out, form, as_json=as_json)


def _check_place(out: Path | None, stdout: bool, as_json: bool) -> None:
    # Before anything is asked for: a key that is fetched and has no place is burnt.
    if (out is not None) == stdout:
        raise typer.BadParameter("give one of --out FILE and --stdout: keys are written only where they are asked for")
    if stdout and as_json:
        raise typer.BadParameter("--json reports without the keys, so it needs --out FILE")


def _fetched(ask: Callable[[], list[DeliveredKey]], number: int, out: Path | None, form: str) -> list[DeliveredKey]:
    if out is None:
        return ask()
    with _place(out, number) as descriptor:
        keys = ask()
        content = _content(keys, form)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.truncate(0)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise KeySupplyError(
                f"{out}: {error.strerror}; the keys are burnt (they were delivered), make room and fetch others"
            ) from None
    return keys


@contextmanager
def _place(out: Path, number: int) -> Iterator[int]:
    """Make the file and take its room before a key is asked for; remove it if none comes."""
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{out}: {error.strerror}; name a new file in a directory you can write") from None
    try:
        try:
            os.posix_fallocate(descriptor, 0, number * _ROOM_BYTES)
        except OSError as error:
            raise ConfigurationError(f"{out}: {error.strerror}; make room, nothing was fetched") from None
        yield descriptor
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _content(keys: Sequence[DeliveredKey], form: str) -> bytes:
    if form == "raw":
        return b"".join(key.material for key in keys)
    container = [{"key_ID": k.key_id, "key": base64.b64encode(k.material).decode("ascii")} for k in keys]
    return json.dumps({"keys": container}).encode() + b"\n"


def _report(keys: Sequence[DeliveredKey], out: Path | None, form: str, *, as_json: bool) -> None:
    if out is None:
        sys.stdout.buffer.write(_content(keys, form))
        sys.stdout.buffer.flush()
        return
    if as_json:
        print(json.dumps({"keys": [{"key_ID": k.key_id, "bits": 8 * len(k.material)} for k in keys], "out": str(out)}))
        return
    for key in keys:
        print(key.key_id)
