"""A certificate authority inside one site: it names the site's KME and its SAEs to each other, nothing else."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from heliograph.errors import ConfigurationError
from heliograph.kme.identity import KME_SCHEME, SAE_SCHEME, identity_uri, sae_id_from_certificate

__all__ = ["Identity", "SiteCa", "sae_id_from_certificate"]

DEFAULT_DAYS = 30
# A peer whose clock is a little behind must still accept a certificate made just now.
BACKDATING = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate, its private key (P-256) and the CA that vouches for it, as PEM text.

    As files: ``<name>.pem``, ``<name>.key`` (0600) and ``ca.pem``.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes

    def write(self, directory: str | Path, name: str) -> tuple[Path, Path, Path]:
        """Write the three files; return their paths in the order certificate, key, CA.

        Raises ConfigurationError, also for a directory where another CA's ``ca.pem`` already is.
        """
        where = Path(directory)
        if (where / "ca.pem").exists() and (where / "ca.pem").read_bytes() != self.ca:
            raise ConfigurationError(f"{where / 'ca.pem'}: is of another CA; write to another directory")
        paths = (where / f"{name}.pem", where / f"{name}.key", where / "ca.pem")
        for path, content, mode in zip(
            paths, (self.certificate, self.key, self.ca), (0o644, 0o600, 0o644), strict=True
        ):
            _replace(path, content, mode)
        return paths


class SiteCa:
    """Issues certificates for one site. ``moment``: when issuing starts to count, now if not given."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, name: str, days: float = 3650, moment: datetime | None = None) -> SiteCa:
        """Make a fresh authority with a self-signed certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        builder = (
            _builder(subject, subject, key.public_key(), days, moment)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, directory: str | Path) -> SiteCa:
        """Read ``ca.pem`` and ``ca.key``. Raises ConfigurationError naming the file and the remedy."""
        where = Path(directory)
        try:
            certificate = x509.load_pem_x509_certificate((where / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((where / "ca.key").read_bytes(), password=None)
        except OSError as error:
            raise ConfigurationError(f"{error.filename}: {error.strerror}; make the site's CA first") from error
        except (ValueError, TypeError):
            raise ConfigurationError(f"{where}: ca.pem or ca.key is not plain PEM; make the site's CA anew") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigurationError(f"{where}: ca.key does not belong to ca.pem; restore the pair")
        return cls(certificate, key)

    def write(self, directory: str | Path) -> None:
        """Write ``ca.pem`` and ``ca.key`` (0600); an authority that is there already is never replaced.

        Raises ConfigurationError.
        """
        for name in ("ca.pem", "ca.key"):
            if (Path(directory) / name).exists():
                raise ConfigurationError(f"{Path(directory) / name}: exists already; load it or name another directory")
        _replace(Path(directory) / "ca.pem", self.certificate, 0o644)
        _replace(Path(directory) / "ca.key", _pem_key(self._key), 0o600)

    @property
    def certificate(self) -> bytes:
        """The authority's certificate as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue_kme(
        self, kme_id: str, hosts: Sequence[str], days: float = DEFAULT_DAYS, moment: datetime | None = None
    ) -> Identity:
        """Issue a server certificate for a KME reached under ``hosts`` (DNS names or IP addresses)."""
        names = [_host_name(host) for host in hosts]
        names.append(x509.UniformResourceIdentifier(identity_uri(KME_SCHEME, kme_id)))
        return self._issue(kme_id, names, ExtendedKeyUsageOID.SERVER_AUTH, days, moment)

    def issue_sae(self, sae_id: str, days: float = DEFAULT_DAYS, moment: datetime | None = None) -> Identity:
        """Issue a client certificate for an SAE: exactly one URI name, ``sae:<id>``."""
        names = [x509.UniformResourceIdentifier(identity_uri(SAE_SCHEME, sae_id))]
        return self._issue(sae_id, names, ExtendedKeyUsageOID.CLIENT_AUTH, days, moment)

    def _issue(
        self,
        name: str,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        days: float,
        moment: datetime | None,
    ) -> Identity:
        if not name.strip() or not name.isprintable():
            raise ConfigurationError(f"{name!r} cannot be an ID in a certificate; use printable text")
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_key = self._key.public_key()
        builder = (
            _builder(_subject(name), self._certificate.subject, key.public_key(), days, moment)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Identity(certificate.public_bytes(serialization.Encoding.PEM), _pem_key(key), self.certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float, moment: datetime | None
) -> x509.CertificateBuilder:
    start = moment or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATING)
        .not_valid_after(start + timedelta(days=days))
    )


def _subject(name: str) -> x509.Name:
    # For people only: RFC 5280 allows 64 characters, and nothing here ever decides by the common name.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _replace(path: Path, content: bytes, mode: int) -> None:
    # Through a new file of the final mode: a private key is at no moment readable by others, nor half written.
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigurationError(f"{path}: {error.strerror}; name a directory this user can write") from error
