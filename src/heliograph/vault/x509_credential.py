"""A chain of certificates as files and as the bytes a site shows its peer: read strictly, before anything is believed.

The credential is a MessagePack array of DER certificates, the leaf first: at most 8 certificates and 64 KiB, in the one
shortest encoding. A certificate with a key or a signature that is not on the list is refused here, used or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from heliograph.errors import AnchorRefused, ConfigurationError
from heliograph.vault.x509_algorithms import SIGNATURE_OIDS, Unacceptable, algorithm_of, signature_name

__all__ = [
    "CERTIFICATES_MAX",
    "CREDENTIAL_BYTES_MAX",
    "UNREADABLE",
    "check_algorithms",
    "date",
    "decode_chain",
    "describe",
    "encode_chain",
    "fingerprint",
    "one_line",
    "read_chain",
    "read_file",
]

# Our choice. Eight ML-DSA-87 certificates are about 60 KiB.
CERTIFICATES_MAX: Final = 8
CREDENTIAL_BYTES_MAX: Final = 64 * 1024
_TEXT_CHARS_MAX: Final = 120

# What the library raises for a damaged certificate. `Warning`: it warns of those that it will refuse one day, such as
# those with a serial number of 0.
UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    Unacceptable,
    Warning,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def encode_chain(chain: Sequence[x509.Certificate]) -> bytes:
    """Return the credential of a chain, the leaf first. Raises ConfigurationError if it is too large to be sent."""
    credential = msgspec.msgpack.encode([certificate.public_bytes(Encoding.DER) for certificate in chain])
    if len(chain) > CERTIFICATES_MAX or len(credential) > CREDENTIAL_BYTES_MAX:
        raise ConfigurationError(
            f"the chain has {len(chain)} certificates in {len(credential)} bytes; "
            f"at most {CERTIFICATES_MAX} and {CREDENTIAL_BYTES_MAX} can be sent: leave out what the peer has"
        )
    return credential


def decode_chain(credential: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a peer's credential. Raises AnchorRefused ("malformed", "weak-algorithm")."""
    if len(credential) > CREDENTIAL_BYTES_MAX:
        raise AnchorRefused("malformed", f"the credential has more than {CREDENTIAL_BYTES_MAX} bytes")
    try:
        parts = msgspec.msgpack.decode(credential, type=list[bytes])
    except (msgspec.DecodeError, RecursionError):
        raise AnchorRefused("malformed", "the credential is not a list of certificates") from None
    if not 1 <= len(parts) <= CERTIFICATES_MAX or msgspec.msgpack.encode(parts) != credential:
        raise AnchorRefused(
            "malformed",
            f"the credential is not 1 to {CERTIFICATES_MAX} certificates in their shortest encoding",
        )
    chain = []
    for index, part in enumerate(parts, 1):
        try:
            certificate = x509.load_der_x509_certificate(part)
            _touch(certificate)
        except UNREADABLE:
            raise AnchorRefused(
                "malformed", f"certificate {index} of the credential is damaged; the peer must have it issued anew"
            ) from None
        check_algorithms(certificate)
        chain.append(certificate)
    return tuple(chain)


def _touch(certificate: x509.Certificate) -> None:
    # The library parses on use: what cannot be parsed must not surface later, as another error.
    if certificate.serial_number <= 0 or certificate.version is not x509.Version.v3:
        raise ValueError
    _ = (certificate.subject, certificate.issuer, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    _ = tuple(certificate.extensions)
    try:
        certificate.public_key()
    except UnsupportedAlgorithm:
        return  # check_algorithms says so


def check_algorithms(certificate: x509.Certificate) -> None:
    """Require a key and a signature from the list. Raises AnchorRefused ("weak-algorithm")."""
    try:
        algorithm_of(certificate.public_key())
    except UnsupportedAlgorithm:
        kind = certificate.public_key_algorithm_oid.dotted_string
        raise AnchorRefused("weak-algorithm", f"{describe(certificate)}: keys {kind} are not accepted") from None
    except Unacceptable as why:
        raise AnchorRefused("weak-algorithm", f"{describe(certificate)}: {why}") from None
    if certificate.signature_algorithm_oid not in SIGNATURE_OIDS:
        kind = signature_name(certificate.signature_algorithm_oid)
        raise AnchorRefused(
            "weak-algorithm",
            f"{describe(certificate)}: its CA signed it with {kind}, which is not accepted; "
            "have it issued with ECDSA and SHA-2, Ed25519, ML-DSA-65 or ML-DSA-87",
        )


def read_file(path: Path, what: str, bytes_max: int) -> bytes:
    """Return a file's content. Raises ConfigurationError if it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; a readable {what} is needed there") from error
    if len(content) > bytes_max:
        raise ConfigurationError(f"{path}: more than {bytes_max} bytes; this is no {what}")
    return content


def read_chain(path: Path, what: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a PEM file, in its order. Raises ConfigurationError, for a weak algorithm too."""
    content = read_file(path, what, 1 << 20)
    try:
        chain = x509.load_pem_x509_certificates(content)
        for certificate in chain:
            _touch(certificate)
    except UNREADABLE:
        raise ConfigurationError(f"{path}: holds no sound PEM certificates; a {what} is needed there") from None
    try:
        for certificate in chain:
            check_algorithms(certificate)
    except AnchorRefused as why:
        raise ConfigurationError(f"{path}: {why}") from None
    return tuple(chain)


def describe(certificate: x509.Certificate) -> str:
    """Return subject and serial number, for one line of text: a peer chose them, so nothing in them is trusted."""
    return f"certificate {one_line(certificate.subject)} (serial {certificate.serial_number:x})"


def one_line(name: x509.Name) -> str:
    """Return a name in one printable line of bounded length."""
    text = name.rfc4514_string() or "without a subject"
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= _TEXT_CHARS_MAX else shown[:_TEXT_CHARS_MAX] + "..."


def fingerprint(certificate: x509.Certificate) -> str:
    """Return SHA-256 over the DER certificate in lower-case hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def date(moment: datetime) -> str:
    """Return a moment as people compare it: UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
