"""``heliograph pki``: a small certificate authority for rehearsals, and a look at any chain of certificates."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heliograph.cli.once import Once
from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography import x509

    from heliograph.vault.rehearsal_ca import RehearsalCa

__all__ = ["app"]

_DAYS_MAX = 36500

app = typer.Typer(help="A small certificate authority for rehearsals.", no_args_is_help=True)

CaDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="The authority's directory, made by `pki init`.")]
Algorithm = Annotated[str, typer.Option(help="ecdsa-p256-sha256, ecdsa-p384-sha384, ed25519, ml-dsa-65 or ml-dsa-87.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def _days(what: str) -> Any:  # noqa: ANN401  - typer's own type
    return typer.Option(min=1, max=_DAYS_MAX, help=f"For how many days {what}.")


@app.command(cls=Once)
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to make it; no authority may be there.")],
    name: Annotated[str, typer.Option(help="The authority's name.")],
    algorithm: Algorithm = "ml-dsa-65",
    days: Annotated[int, _days("root and intermediate are valid")] = 365,
    as_json: Json = False,
) -> None:
    """Make a root and an intermediate CA. The root's certificate is what the other site registers."""
    with refusals(as_json=as_json):
        # Imported here, as in every command below, so that `heliograph --help` is quick.
        from heliograph.vault.rehearsal_ca import RehearsalCa  # noqa: PLC0415
        from heliograph.vault.x509_trust import anchor_fingerprint  # noqa: PLC0415

        RehearsalCa.create(directory, name, algorithm, days)
        root = directory / "root.pem"
        mark = anchor_fingerprint(root)
        if as_json:
            print(json.dumps({"root": str(root), "algorithm": algorithm, "anchor_fingerprint": mark}))
        else:
            print(f"{root}: carry it to the other site, and compare this fingerprint there (`heliograph pki show`):")
            print(f"  {mark}")


@app.command(cls=Once)
def issue(
    directory: CaDirectory,
    site: Annotated[str, typer.Argument(metavar="SITE", help="The name of the site that will prove itself with it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR2", help="Where to write link.pem and link.key.")],
    algorithm: Annotated[
        str | None, typer.Option(help="Of the site's key; that of the authority if not given.")
    ] = None,
    days: Annotated[int, _days("the certificate is valid")] = 30,
    as_json: Json = False,
) -> None:
    """Issue a site's link certificate with a fresh key. Files that exist are never overwritten."""
    with refusals(as_json=as_json):
        ca = _load(directory)
        chain, key, certificate = ca.issue_to(out, site, days, algorithm)
        serial = f"{certificate.serial_number:x}"
        if as_json:
            print(json.dumps({"chain": str(chain), "key": str(key), "site": site, "serial": serial}))
        else:
            print(f"{chain}, {key}: for site {site!r}, serial {serial}")


@app.command(cls=Once)
def revoke(
    directory: CaDirectory,
    which: Annotated[str, typer.Argument(metavar="SERIAL|CERT.pem", help="Serial in hexadecimal, or the certificate.")],
    as_json: Json = False,
) -> None:
    """Revoke a certificate for good. It counts when the peers have a fresh list or response: `pki crl`, `pki ocsp`."""
    with refusals(as_json=as_json):
        ca = _load(directory)
        revoked = ca.revoke(_serial(which, ca))
        serial = f"{revoked.serial_number:x}"
        if as_json:
            print(json.dumps({"revoked": serial}))
        else:
            print(f"serial {serial}: revoked. Next: `heliograph pki crl {directory}`, and carry the list to the peers")


@app.command(cls=Once)
def crl(
    directory: CaDirectory,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write; crl.pem in DIR if not given.")
    ] = None,
    days: Annotated[int, _days("the lists are current")] = 7,
    as_json: Json = False,
) -> None:
    """Write fresh revocation lists of root and intermediate into one file, in place of older ones."""
    with refusals(as_json=as_json):
        from heliograph.vault.certificate_parts import replace_file  # noqa: PLC0415

        path = out or directory / "crl.pem"
        replace_file(path, _load(directory).revocation_lists(days), 0o644)
        print(json.dumps({"crl": str(path), "days": days}) if as_json else f"{path}: current for {days} days")


@app.command(cls=Once)
def ocsp(
    directory: CaDirectory,
    certificate: Annotated[Path, typer.Argument(metavar="CERT.pem", help="The certificate, or a chain it begins.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the response (DER).")],
    days: Annotated[int, _days("the response holds")] = 1,
    as_json: Json = False,
) -> None:
    """Write an OCSP response about one certificate, in place of an older one."""
    with refusals(as_json=as_json):
        from heliograph.vault.certificate_parts import replace_file  # noqa: PLC0415

        ca = _load(directory)
        replace_file(out, ca.ocsp_response(_first(certificate), days), 0o644)
        print(json.dumps({"ocsp": str(out), "days": days}) if as_json else f"{out}: holds for {days} days")


@app.command(cls=Once)
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A PEM file with certificates, of any authority.")],
    as_json: Json = False,
) -> None:
    """Show each certificate of a file, and the fingerprint to compare if the file can be registered as a peer's CA."""
    with refusals(as_json=as_json):
        from heliograph.vault.certificate_report import report_certificates  # noqa: PLC0415
        from heliograph.vault.x509_trust import anchor_fingerprint  # noqa: PLC0415

        reports = [asdict(one) for one in report_certificates(file)]
        try:
            mark = anchor_fingerprint(file)
        except ConfigurationError:
            mark = None  # a chain, not an anchor
        if as_json:
            print(json.dumps({"certificates": reports, "anchor_fingerprint": mark}))
            return
        print("\n".join(line for one in reports for line in _lines(one)))
        if mark is not None:
            print(f"As a peer's CA, compare this fingerprint:\n  {mark}")


def _lines(one: dict[str, Any]) -> list[str]:
    length = "" if one["path_length"] is None else f", path length {one['path_length']}"
    return [
        one["subject"],
        f"  issued by    {one['issuer']}",
        f"  serial       {one['serial']}",
        f"  key          {one['algorithm']}, signed with {one['signature']}",
        f"  valid        {one['not_before']} to {one['not_after']}",
        f"  names        {', '.join(one['names']) or '-'}",
        f"  may          {', '.join(one['key_usage']) or '-'}{length if one['is_ca'] else ''}",
        f"  purposes     {', '.join(one['extended_key_usage']) or '-'}",
        f"  sha-256      {one['sha256']}",
    ]


def _load(directory: Path) -> RehearsalCa:
    from heliograph.vault.rehearsal_ca import RehearsalCa  # noqa: PLC0415

    return RehearsalCa.load(directory)


def _first(path: Path) -> x509.Certificate:
    from heliograph.vault.x509_credential import read_chain  # noqa: PLC0415

    return read_chain(path, "certificate of this authority")[0]


def _serial(which: str, ca: RehearsalCa) -> int:
    if not Path(which).is_file():
        try:
            return int(which, 16)
        except ValueError:
            raise ConfigurationError(
                f"{which}: is no file and no serial number in hexadecimal; see `pki show`"
            ) from None
    certificate = _first(Path(which))
    if ca.find(certificate.serial_number) != certificate:
        raise ConfigurationError(f"{which}: another authority issued this certificate; ask that one to revoke it")
    return certificate.serial_number
