"""What a person needs to see of a certificate, of any kind: nothing is checked here, and nothing is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from heliograph.errors import ConfigurationError
from heliograph.vault.x509_algorithms import Unacceptable, algorithm_of, signature_name
from heliograph.vault.x509_credential import UNREADABLE, fingerprint, one_line, read_file

__all__ = ["CertificateReport", "report_certificates"]

_USAGES = ("digital_signature", "key_cert_sign", "crl_sign", "key_encipherment", "key_agreement", "content_commitment")


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """One certificate. ``algorithm`` is the key's, or why it is not accepted; dates are ISO 8601 in UTC."""

    subject: str
    issuer: str
    serial: str
    algorithm: str
    signature: str
    not_before: str
    not_after: str
    names: tuple[str, ...]
    is_ca: bool
    path_length: int | None
    key_usage: tuple[str, ...]
    extended_key_usage: tuple[str, ...]
    sha256: str


def report_certificates(path: Path) -> tuple[CertificateReport, ...]:
    """Return a report for each certificate of a PEM file. Raises ConfigurationError if one cannot be read."""
    content = read_file(path, "PEM file with certificates", 1 << 20)
    try:
        return tuple(_report(certificate) for certificate in x509.load_pem_x509_certificates(content))
    except UNREADABLE:
        raise ConfigurationError(f"{path}: holds no sound PEM certificates; name a .pem file with some") from None


def _report(certificate: x509.Certificate) -> CertificateReport:
    names: tuple[str, ...] = ()
    is_ca, path_length = False, None
    usage: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names = tuple(_printable(str(name.value)) for name in value)
        elif isinstance(value, x509.BasicConstraints):
            is_ca, path_length = value.ca, value.path_length
        elif isinstance(value, x509.KeyUsage):
            usage = tuple(name for name in _USAGES if getattr(value, name))
        elif isinstance(value, x509.ExtendedKeyUsage):
            purposes = tuple(oid.dotted_string for oid in value)
    try:
        algorithm = algorithm_of(certificate.public_key())
    except Unacceptable as why:
        algorithm = str(why)
    except UnsupportedAlgorithm:
        algorithm = f"{certificate.public_key_algorithm_oid.dotted_string} keys are not accepted"
    return CertificateReport(
        subject=one_line(certificate.subject),
        issuer=one_line(certificate.issuer),
        serial=f"{certificate.serial_number:x}",
        algorithm=algorithm,
        signature=signature_name(certificate.signature_algorithm_oid),
        not_before=certificate.not_valid_before_utc.astimezone(UTC).isoformat(),
        not_after=certificate.not_valid_after_utc.astimezone(UTC).isoformat(),
        names=names,
        is_ca=is_ca,
        path_length=path_length,
        key_usage=usage,
        extended_key_usage=purposes,
        sha256=fingerprint(certificate),
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
