"""A certificate authority inside one site: it names the site's KME and its SAEs to each other, nothing else."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from heliograph.errors import ConfigurationError
from heliograph.kme.identity import KME_SCHEME, SAE_SCHEME, identity_uri, sae_id_from_certificate
from heliograph.vault.certificate_parts import (
    check_name,
    common_name,
    key_usage,
    private_pem,
    replace_file,
    start_certificate,
)

__all__ = ["Identity", "SiteCa", "sae_id_from_certificate"]

DEFAULT_DAYS = 30


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
            replace_file(path, content, mode)
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
        subject = common_name(name)
        builder = (
            start_certificate(subject, subject, key.public_key(), days, moment)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(authority=True), critical=True)
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
        replace_file(Path(directory) / "ca.pem", self.certificate, 0o644)
        replace_file(Path(directory) / "ca.key", private_pem(self._key), 0o600)

    @property
    def certificate(self) -> bytes:
        """The authority's certificate as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue_kme(
        self,
        kme_id: str,
        hosts: Sequence[str],
        days: float = DEFAULT_DAYS,
        moment: datetime | None = None,
        *,
        interworking: bool = False,
    ) -> Identity:
        """Issue a server certificate for a KME reached under ``hosts`` (DNS names or IP addresses).

        ``interworking``: it may also call other key managers (ETSI GS QKD 020), so it is a client certificate too.
        """
        names = [_host_name(host) for host in hosts]
        names.append(x509.UniformResourceIdentifier(identity_uri(KME_SCHEME, kme_id)))
        more = (ExtendedKeyUsageOID.CLIENT_AUTH,) if interworking else ()
        return self._issue(kme_id, names, ExtendedKeyUsageOID.SERVER_AUTH, days, moment, *more)

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
        *more: x509.ObjectIdentifier,
    ) -> Identity:
        check_name(name)
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_key = self._key.public_key()
        builder = (
            start_certificate(common_name(name), self._certificate.subject, key.public_key(), days, moment)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage, *more]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Identity(certificate.public_bytes(serialization.Encoding.PEM), private_pem(key), self.certificate)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
