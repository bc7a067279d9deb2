"""A small certificate authority for rehearsals: a root, an intermediate below it, and certificates for sites.

Its keys are plain files, so it is for trying things out and for tests; a real link's CA belongs to those who run one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from heliograph.errors import ConfigurationError
from heliograph.kme.identity import SITE_SCHEME, identity_uri
from heliograph.vault.certificate_parts import (
    BACKDATING,
    check_name,
    common_name,
    key_usage,
    private_pem,
    replace_file,
    start_certificate,
    write_new,
)
from heliograph.vault.x509_algorithms import LinkPrivateKey, Unacceptable, algorithm_of, certificate_hash, generate_key
from heliograph.vault.x509_credential import date, describe, read_chain, read_file
from heliograph.vault.x509_keys import read_key
from heliograph.vault.x509_trust import LINK_AUTHENTICATION

__all__ = ["LinkIdentity", "RehearsalCa"]

_LEVELS: Final = ("root", "intermediate")
_REVOKED: Final = "revoked.json"
_ISSUED: Final = "issued"


@dataclass(frozen=True, slots=True)
class LinkIdentity:
    """A site's certificate, the intermediate above it, and its private key."""

    certificate: x509.Certificate
    intermediate: x509.Certificate
    key: LinkPrivateKey = field(repr=False)

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Write ``link.pem`` (the chain without its root) and ``link.key`` (0600); return their paths.

        Raises ConfigurationError, also if one of them exists.
        """
        paths = _link_files(directory)
        write_new(paths[1], private_pem(self.key), 0o600)
        write_new(paths[0], _pem(self.certificate) + _pem(self.intermediate), 0o644)
        return paths


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: LinkPrivateKey = field(repr=False)


class RehearsalCa:
    """The authority in one directory. ``moment``: when an act takes place, now if not given."""

    def __init__(self, directory: Path, root: _Authority, intermediate: _Authority) -> None:
        self._directory, self._root, self._intermediate = directory, root, intermediate

    @classmethod
    def create(
        cls, directory: Path, name: str, algorithm: str, days: float, moment: datetime | None = None
    ) -> RehearsalCa:
        """Make a fresh root and intermediate in ``directory``. Raises ConfigurationError if a CA is there already."""
        check_name(name)
        root_key, lower_key = _generate(algorithm), _generate(algorithm)
        root_name, lower_name = common_name(f"{name} root"), common_name(f"{name} intermediate")
        root = _authority(root_name, root_name, root_key, root_key, 1, days, moment)
        lower = _authority(lower_name, root_name, lower_key, root_key, 0, days, moment)
        _make(directory)
        for level in _LEVELS:
            for suffix in ("pem", "key"):
                if (directory / f"{level}.{suffix}").exists():
                    raise ConfigurationError(
                        f"{directory / f'{level}.{suffix}'}: a CA is here already and is never overwritten; "
                        "name another directory"
                    )
        _make(directory / _ISSUED)
        for level, made in zip(_LEVELS, (root, lower), strict=True):
            write_new(directory / f"{level}.key", private_pem(made.key), 0o600)
            write_new(directory / f"{level}.pem", _pem(made.certificate), 0o644)
        return cls(directory, root, lower)

    @classmethod
    def load(cls, directory: Path) -> RehearsalCa:
        """Read an authority. Raises ConfigurationError naming the file and the remedy."""
        found = []
        for level in _LEVELS:
            path = directory / f"{level}.pem"
            certificate = read_chain(path, "CA made by `heliograph pki init`")[0]
            key = read_key(directory / f"{level}.key")
            if key.public_key() != certificate.public_key():
                raise ConfigurationError(f"{path}: {level}.key does not belong to it; restore the pair")
            found.append(_Authority(certificate, key))
        return cls(directory, *found)

    @property
    def root(self) -> x509.Certificate:
        """The root: what the other site registers."""
        return self._root.certificate

    @property
    def intermediate(self) -> x509.Certificate:
        """The CA that issues the sites' certificates."""
        return self._intermediate.certificate

    def issue(
        self, site: str, days: float, algorithm: str | None = None, moment: datetime | None = None
    ) -> LinkIdentity:
        """Issue a certificate with which ``site`` proves itself on a link, and for nothing else.

        ``algorithm``: of the site's key, that of the CA if not given. Raises ConfigurationError.
        """
        check_name(site)
        above = self._intermediate
        start = moment or datetime.now(UTC)
        last = above.certificate.not_valid_after_utc
        if start + timedelta(days=days) > last:
            raise ConfigurationError(
                f"a certificate of {days:g} days would outlive its CA ({date(last)}); ask for less"
            )
        key = _generate(algorithm or algorithm_of(above.key))
        certificate = (
            start_certificate(common_name(site), above.certificate.subject, key.public_key(), days, start)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity_uri(SITE_SCHEME, site))]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([LINK_AUTHENTICATION]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key()), critical=False)
            .sign(above.key, certificate_hash(above.key))
        )
        write_new(self._directory / _ISSUED / f"{certificate.serial_number:x}.pem", _pem(certificate), 0o644)
        return LinkIdentity(certificate, above.certificate, key)

    def issue_to(
        self, directory: Path, site: str, days: float, algorithm: str | None = None
    ) -> tuple[Path, Path, x509.Certificate]:
        """Issue and write; nothing is issued if the files could not be written there. Raises ConfigurationError."""
        _link_files(directory)
        made = self.issue(site, days, algorithm)
        return (*made.write(directory), made.certificate)

    def find(self, serial: int) -> x509.Certificate:
        """Return what was issued under a serial number, the intermediate included. Raises ConfigurationError."""
        if serial == self.intermediate.serial_number:
            return self.intermediate
        path = self._directory / _ISSUED / f"{serial:x}.pem"
        if not path.exists():
            raise ConfigurationError(f"serial {serial:x}: this CA issued no such certificate; see {path.parent}")
        return read_chain(path, "certificate issued here")[0]

    def revoke(self, serial: int, moment: datetime | None = None) -> x509.Certificate:
        """Mark a certificate as revoked, once and for all; the next lists and responses say so."""
        certificate = self.find(serial)
        revoked = self._read_revoked()
        revoked.setdefault(f"{serial:x}", (moment or datetime.now(UTC)).isoformat(timespec="seconds"))
        replace_file(self._directory / _REVOKED, json.dumps(revoked, indent=2).encode() + b"\n", 0o644)
        return certificate

    def revocation_lists(self, days: float, moment: datetime | None = None) -> bytes:
        """Return fresh lists of the intermediate and of the root, PEM, one after the other, valid for ``days``."""
        start = moment or datetime.now(UTC)
        revoked = {int(serial, 16): datetime.fromisoformat(when) for serial, when in self._read_revoked().items()}
        lists = b""
        for authority in (self._intermediate, self._root):
            builder = (
                x509.CertificateRevocationListBuilder()
                .issuer_name(authority.certificate.subject)
                .last_update(start - BACKDATING)
                .next_update(start + timedelta(days=days))
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
                )
                # RFC 5280 5.2.3: grows with each list; milliseconds do so without a counter to keep.
                .add_extension(x509.CRLNumber(int(start.timestamp() * 1000)), critical=False)
            )
            for serial, when in revoked.items():
                if (serial == self.intermediate.serial_number) == (authority is self._root):
                    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
                    builder = builder.add_revoked_certificate(entry.build())
            lists += builder.sign(authority.key, certificate_hash(authority.key)).public_bytes(Encoding.PEM)
        return lists

    def ocsp_response(self, certificate: x509.Certificate, days: float, moment: datetime | None = None) -> bytes:
        """Return a response (DER) about a certificate issued here, signed by its issuer, valid for ``days``."""
        if self.find(certificate.serial_number) != certificate:
            raise ConfigurationError(f"{describe(certificate)} was not issued by this CA")
        issuer = self._root if certificate == self.intermediate else self._intermediate
        start = moment or datetime.now(UTC)
        when = self._read_revoked().get(f"{certificate.serial_number:x}")
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate,
            issuer=issuer.certificate,
            algorithm=hashes.SHA256(),
            cert_status=ocsp.OCSPCertStatus.REVOKED if when else ocsp.OCSPCertStatus.GOOD,
            this_update=start - BACKDATING,
            next_update=start + timedelta(days=days),
            revocation_time=datetime.fromisoformat(when) if when else None,
            revocation_reason=None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
        return builder.sign(issuer.key, certificate_hash(issuer.key)).public_bytes(Encoding.DER)

    def _read_revoked(self) -> dict[str, str]:
        path = self._directory / _REVOKED
        if not path.exists():
            return {}
        try:
            return msgspec.json.decode(read_file(path, "list of revoked serials", 1 << 24), type=dict[str, str])
        except msgspec.DecodeError:
            raise ConfigurationError(
                f"{path}: is not the JSON that `heliograph pki revoke` wrote; restore it"
            ) from None


def _generate(algorithm: str) -> LinkPrivateKey:
    try:
        return generate_key(algorithm)
    except Unacceptable as why:
        raise ConfigurationError(str(why)) from None


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    key: LinkPrivateKey,
    issuer_key: LinkPrivateKey,
    path_length: int,
    days: float,
    moment: datetime | None,
) -> _Authority:
    builder = (
        start_certificate(subject, issuer, key.public_key(), days, moment)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return _Authority(builder.sign(issuer_key, certificate_hash(issuer_key)), key)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _link_files(directory: Path) -> tuple[Path, Path]:
    _make(directory)
    chain, key = directory / "link.pem", directory / "link.key"
    for path in (chain, key):
        if path.exists():
            raise ConfigurationError(f"{path}: exists already and is never overwritten; name another directory")
    return chain, key


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}; name a directory this user can write") from error
