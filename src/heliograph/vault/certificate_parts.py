"""What every authority of this package does alike: names, key usages, validity, keys as PEM, whole files."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from heliograph.errors import ConfigurationError

__all__ = [
    "BACKDATING",
    "check_name",
    "common_name",
    "key_usage",
    "private_pem",
    "replace_file",
    "start_certificate",
    "write_new",
]

# A peer whose clock is a little behind must still accept a certificate made just now.
BACKDATING = timedelta(minutes=5)


def start_certificate(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, days: float, moment: datetime | None
) -> x509.CertificateBuilder:
    """Return a builder with a random serial number, valid for ``days`` from ``moment`` (now if not given)."""
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


def check_name(name: str) -> None:
    """Require printable text. Raises ConfigurationError."""
    if not name.strip() or not name.isprintable():
        raise ConfigurationError(f"{name!r} cannot be an ID in a certificate; use printable text")


def common_name(name: str) -> x509.Name:
    """Return a subject for people. RFC 5280 allows 64 characters, and nothing ever decides by the common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return the key usage of an authority (certificates, revocation lists) or of a leaf (signatures)."""
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


def private_pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """Return a private key as plain PEM (PKCS #8): for files of mode 0600 only."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file durably, whole or not at all, in place of one that is there. Raises ConfigurationError."""
    # Through a new file of the final mode: a private key is at no moment readable by others, nor half written.
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        _create(fresh, content, mode)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigurationError(f"{path}: {error.strerror}; name a directory this user can write") from error


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file durably where none is. Raises ConfigurationError, also if one is there: it stays as it is."""
    try:
        _create(path, content, mode)
    except FileExistsError as error:
        raise ConfigurationError(f"{path}: exists already and is never overwritten; name another place") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a directory this user can write") from error


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
