"""A site's own credential and what its peer is believed by, for each kind of anchor: read, checked, named."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from heliograph.authentication.registration import anchor_kinds
from heliograph.errors import AnchorRefused, ConfigurationError
from heliograph.ports import PeerTrust, Signer
from heliograph.site.clocks import WallClock
from heliograph.site.config import SiteConfig
from heliograph.site.trust_store import PeerRecord
from heliograph.vault.openpgp import OpenPgpSigner
from heliograph.vault.openpgp_certificate import certificate_fingerprint, read_certificate_file
from heliograph.vault.openpgp_trust import OpenPgpTrust
from heliograph.vault.revocation_files import check_crl, check_ocsp_response
from heliograph.vault.x509_credential import read_file
from heliograph.vault.x509_keys import X509Signer
from heliograph.vault.x509_roots import root_fingerprint
from heliograph.vault.x509_trust import X509Trust, anchor_fingerprint

__all__ = [
    "OwnCredential",
    "PeerFiles",
    "check_given",
    "check_refreshed",
    "own_credential",
    "peer_anchors",
    "peer_trust",
    "read_given",
]


_GIVEN_BYTES_MAX = 16 << 20  # as much as any kind of file takes
_MEANING = {"pki": "certificates", "openpgp": "OpenPGP keys"}
_OPTIONS = {
    "pki": {"ca": "--ca", "crl": "--crl", "ocsp": "--ocsp", "crl_required": "--no-crl"},
    "openpgp": {
        "introducers": "--introducers",
        "threshold": "--threshold",
        "user_id": "--user-id",
        "certificate": "--peer-certificate",
        "revocations": "--revocation",
    },
}


@dataclass(frozen=True, slots=True)
class OwnCredential:
    """What this site proves itself with besides a book. ``anchors``: what its peer must have registered, by kind."""

    signer: Signer = field(repr=False)
    anchors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PeerFiles:
    """The files and terms by which a peer's credential is believed: as an operator gave them, or as registered.

    ``certificate``: the peer's OpenPGP certificate, whose fingerprint two people compare.
    """

    ca: Path | None = None
    crl: Path | None = None
    ocsp: Path | None = None
    crl_required: bool = True
    introducers: Path | None = None
    threshold: int | None = None
    user_id: str | None = None
    certificate: Path | None = None
    revocations: Path | None = None

    def given(self) -> dict[str, Path]:
        """Return the files that are there, by the name they have in the trust directory."""
        named = {
            "ca.pem": self.ca,
            "crl.pem": self.crl,
            "ocsp.der": self.ocsp,
            "introducers.asc": self.introducers,
            "peer.asc": self.certificate,
            "revocations.asc": self.revocations,
        }
        return {name: path for name, path in named.items() if path is not None}

    @classmethod
    def registered(cls, directory: Path, record: PeerRecord) -> PeerFiles:
        """Return what is registered in a trust directory."""
        here = {name: directory / name for name in record.files}
        return cls(
            ca=here.get("ca.pem"),
            crl=here.get("crl.pem"),
            ocsp=here.get("ocsp.der"),
            crl_required=record.crl_required,
            introducers=here.get("introducers.asc"),
            threshold=record.threshold,
            user_id=record.user_id,
            certificate=here.get("peer.asc"),
            revocations=here.get("revocations.asc"),
        )


def own_credential(config: SiteConfig) -> OwnCredential | None:
    """Return this site's signer, if the bootstrap has signatures. Raises ConfigurationError naming the file."""
    pki, openpgp = config.file.link.pki, config.file.link.openpgp
    if pki is not None:
        signer = X509Signer(config.path(pki.certificate), config.path(pki.key))
        root = None if pki.root is None else config.path(pki.root)
        return OwnCredential(signer, {"pki": root_fingerprint(config.path(pki.certificate), root)})
    if openpgp is not None:
        mine = OpenPgpSigner(config.path(openpgp.key), config.path(openpgp.certificate))
        return OwnCredential(mine, {"openpgp": mine.fingerprint})
    return None


def peer_trust(config: SiteConfig, files: PeerFiles) -> PeerTrust | None:
    """Return what decides about the peer's credential, if the bootstrap has signatures.

    Raises ConfigurationError naming the option that is missing or the file that cannot be used.
    """
    kinds = anchor_kinds(config.registration.bootstrap)
    if "pki" in kinds:
        if files.ca is None or (files.crl is None and files.crl_required):
            raise ConfigurationError(
                f"bootstrap {config.registration.bootstrap}: give --ca and --crl (or --no-crl, which believes revoked "
                "certificates until they expire)"
            )
        return X509Trust(files.ca, config.peer, files.crl, files.ocsp, crl_required=files.crl_required)
    if "openpgp" in kinds:
        if files.introducers is None or files.threshold is None or files.user_id is None or files.certificate is None:
            raise ConfigurationError(
                f"bootstrap {config.registration.bootstrap}: give --introducers, --threshold, --user-id and "
                "--peer-certificate"
            )
        return OpenPgpTrust(files.introducers, files.threshold, files.user_id, files.revocations)
    return None


def peer_anchors(files: PeerFiles) -> dict[str, str]:
    """Return the peer's anchors besides a book, by kind. Raises ConfigurationError naming the file."""
    found = {}
    if files.ca is not None:
        found["pki"] = anchor_fingerprint(files.ca)
    if files.certificate is not None:
        found["openpgp"] = certificate_fingerprint(files.certificate)
    return found


def check_given(config: SiteConfig, files: PeerFiles, known: PeerFiles, trust: PeerTrust | None) -> None:
    """Refuse files that the bootstrap does not use, that cannot be read, or a peer's key for which nobody vouches.

    ``known``: what is registered under the same anchor, so that nothing takes a revocation back. Raises
    ConfigurationError naming the option or the file.
    """
    _check_kinds(config, files)
    check_crl(files.crl, known.crl)
    check_ocsp_response(files.ocsp, known.ocsp)
    if trust is not None and files.certificate is not None:
        try:
            trust.accept(read_certificate_file(files.certificate).content, WallClock().now())
        except AnchorRefused as why:
            raise ConfigurationError(f"{files.certificate}: {why}") from None


def check_refreshed(config: SiteConfig, known: PeerFiles, files: PeerFiles) -> None:
    """Refuse what is no revocation of this bootstrap's kind, or older than what is registered: it would un-revoke.

    Raises ConfigurationError naming the option or the file.
    """
    _check_kinds(config, files)
    check_crl(files.crl, known.crl)
    check_ocsp_response(files.ocsp, known.ocsp)
    if files.revocations is not None:
        trust = peer_trust(config, replace(known, revocations=files.revocations))
        # GnuPG's word on a revocation of the peer or of an introducer, now: a false one could never be taken back. That
        # a true one, or anything else, refuses the peer is no error here.
        if trust is not None and known.certificate is not None:
            with suppress(AnchorRefused):
                trust.accept(read_certificate_file(known.certificate).content, WallClock().now())


def _check_kinds(config: SiteConfig, files: PeerFiles) -> None:
    method = config.registration.bootstrap
    kinds = anchor_kinds(method)
    for kind, options in _OPTIONS.items():
        for name, option in options.items():
            value = getattr(files, name)
            if kind not in kinds and value is not None and value is not True:
                raise ConfigurationError(f"{option}: not with bootstrap {method}, which has no {_MEANING[kind]}")
    if files.revocations is not None and b"-----BEGIN PGP" not in read_given(files.revocations):
        raise ConfigurationError(
            f"{files.revocations}: holds no armoured OpenPGP data: write it with gpg --armor, and remove the colon "
            "with which GnuPG guards a revocation certificate"
        )


def read_given(path: Path) -> bytes:
    """Return the content of a file that an operator named. Raises ConfigurationError."""
    return read_file(path, "file of anchors or revocations", _GIVEN_BYTES_MAX)
