"""``heliograph site register`` and ``site revoke``: whom this site's link believes, and who vouched for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from heliograph.authentication.anchors.words import grouped, words
from heliograph.cli.link_option import LinkName
from heliograph.cli.refusals import refusals
from heliograph.site.config import read_site
from heliograph.site.credentials import PeerFiles
from heliograph.site.register import Registered
from heliograph.site.register import register as register_peer
from heliograph.site.register import revoke as refresh_revocations

__all__ = ["aloud", "register", "revoke"]

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration.")]
Approver = Annotated[str, typer.Option(help="Who answers for this; the audit log keeps the name.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
_WORDS_A_LINE = 6


def aloud(value: bytes) -> str:
    """Return 128 bits as two people read them to each other: two lines of words, one of hexadecimal digits."""
    said = words(value).split()
    lines = [" ".join(said[i : i + _WORDS_A_LINE]) for i in range(0, len(said), _WORDS_A_LINE)]
    return "\n".join(f"  {line}" for line in (*lines, grouped(value)))


def register(
    site: SiteFile,
    approver: Approver,
    ca: Annotated[Path | None, typer.Option(help="pki: the self-signed certificate of the peer's CA, PEM.")] = None,
    crl: Annotated[Path | None, typer.Option(help="pki: revocation lists of the peer's CAs, PEM, in one file.")] = None,
    no_crl: Annotated[bool, typer.Option("--no-crl", help="pki: the peer's CA publishes no revocation list.")] = False,
    ocsp: Annotated[Path | None, typer.Option(help="pki: an OCSP response about the peer's certificate, DER.")] = None,
    introducers: Annotated[Path | None, typer.Option(help="openpgp: the keys of those whom you trust.")] = None,
    threshold: Annotated[int | None, typer.Option(help="openpgp: how many introducers must have certified it.")] = None,
    user_id: Annotated[str | None, typer.Option(help="openpgp: the peer's user ID, exactly.")] = None,
    peer_certificate: Annotated[Path | None, typer.Option(help="openpgp: the peer's certificate, to compare.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of an earlier registration.")] = False,
    link: LinkName = None,
    as_json: Json = False,
) -> None:
    """Register the link's peer and its trust anchor; shows a fingerprint for both operators to compare by voice."""
    with refusals(as_json=as_json):
        files = PeerFiles(
            ca=ca,
            crl=crl,
            ocsp=ocsp,
            crl_required=not no_crl,
            introducers=introducers,
            threshold=threshold,
            user_id=user_id,
            certificate=peer_certificate,
        )
        config = read_site(site).of_link(link)
        done = register_peer(config, approver, files, replace=replace)
        if as_json:
            print(json.dumps(_document(done)))
        else:
            _say(f"{site}{config.link_option}", done)


def _document(done: Registered) -> dict[str, object]:
    record = done.record
    return {
        "site": record.site,
        "peer": record.peer,
        "link": record.link,
        "bootstrap": record.bootstrap,
        "fingerprint": {"words": words(done.fingerprint), "hex": done.fingerprint.hex()},
        "own_anchors": record.own_anchors,
        "peer_anchors": record.peer_anchors,
        "introducers": list(record.introducers),
        "approver": record.approver,
        "time": record.time,
        "anchors_changed": done.anchors_changed,
    }


def _say(site: str, done: Registered) -> None:
    record = done.record
    print(f"{record.peer} is registered at {record.site}: link {record.link}, bootstrap {record.bootstrap}.")
    if record.introducers:
        print(f"{record.threshold} of these introducers must certify {record.user_id!r}. Check that you know each one:")
        for one in record.introducers:
            print(f"  {one.upper()}")
    print("Read this to the other site's operator by telephone. Both sites must show the same:")
    print(aloud(done.fingerprint))
    if done.anchors_changed:
        print("The anchor is another one than before: on both sites, stop the site,")
        print(f"run `heliograph site rebootstrap {site} --yes --approver NAME`, and start it.")


def revoke(
    site: SiteFile,
    approver: Approver,
    crl: Annotated[Path | None, typer.Option(help="Newer revocation lists of the peer's CAs, PEM.")] = None,
    ocsp: Annotated[Path | None, typer.Option(help="A newer OCSP response about the peer's certificate, DER.")] = None,
    revocation: Annotated[
        Path | None, typer.Option(help="An OpenPGP revocation certificate, or a newer export of a key; armoured.")
    ] = None,
    link: LinkName = None,
    as_json: Json = False,
) -> None:
    """Bring revocations up to date; the registration stays. OpenPGP revocations are added, never taken back."""
    with refusals(as_json=as_json):
        files = PeerFiles(crl=crl, ocsp=ocsp, revocations=revocation)
        record = refresh_revocations(read_site(site).of_link(link), approver, files)
        if as_json:
            print(json.dumps({"peer": record.peer, "link": record.link, "files": record.files}))
        else:
            print(f"{record.peer}: revocations are up to date. A running site honours them at its next connection.")
