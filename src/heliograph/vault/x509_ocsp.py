"""One OCSP response (RFC 6960) about one certificate, from a file.

By hand, since neither pyOpenSSL nor cryptography checks a response: who may sign it (3.2, 4.2.2.2), which certificate
it is about, and its dates. By the libraries: parsing, the identifiers to compare with, signatures, and the path of a
delegated responder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from heliograph.errors import AnchorRefused
from heliograph.vault.x509_algorithms import Unacceptable, as_public_key, verify_as
from heliograph.vault.x509_credential import UNREADABLE, check_algorithms, date, describe, one_line

__all__ = ["check_ocsp"]

# SHA-1 only names the issuer here (4.1.1), as most responders do: what counts is that the issuer's key signed it.
_NAMING_HASHES: Final = ("sha1", "sha256", "sha384", "sha512")

PathCheck = Callable[[x509.Certificate], Sequence[x509.Certificate]]


def check_ocsp(
    response_der: bytes,
    source: str,
    leaf: x509.Certificate,
    issuer: x509.Certificate,
    path_of: PathCheck,
    now: datetime,
) -> None:
    """Require a response that says "good" of ``leaf``, signed for its ``issuer`` and current at ``now``.

    ``path_of`` checks a delegated responder's certificate and returns its path, or raises AnchorRefused.
    Raises AnchorRefused ("revoked", "revocation-unknown").
    """
    try:
        response = ocsp.load_der_ocsp_response(response_der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise _unknown(source, f"the responder answered {response.response_status.name.lower()}")
        if any(extension.critical for extension in response.extensions):
            raise _unknown(source, "it has a critical extension that is not known here")
        _check_signer(response, source, issuer, path_of)
        answers = [one for one in response.responses if _is_about(one, leaf, issuer)]
        if not answers:
            raise _unknown(source, f"it says nothing about {describe(leaf)}")
        for one in answers:
            _check_answer(one, source, leaf, now)
    except UNREADABLE:
        raise _unknown(source, "it is not an OCSP response in DER") from None


def _unknown(source: str, why: str) -> AnchorRefused:
    return AnchorRefused("revocation-unknown", f"OCSP response {source}: {why}; fetch a new one")


def _check_signer(response: ocsp.OCSPResponse, source: str, issuer: x509.Certificate, path_of: PathCheck) -> None:
    if _signed(response, issuer):
        return
    for delegate in response.certificates:
        if not _signed(response, delegate):
            continue
        try:
            check_algorithms(delegate)
            path = path_of(delegate)
        except AnchorRefused as why:
            raise _unknown(source, f"its responder is refused: {why}") from None
        if len(path) < 2 or path[1] != issuer:
            raise _unknown(
                source, f"{one_line(issuer.subject)} did not itself issue {describe(delegate)}, which signed"
            )
        if not _may_sign(delegate):
            raise _unknown(source, f"{describe(delegate)}, which signed it, is not a certificate for OCSP signing")
        return
    raise _unknown(source, f"neither {one_line(issuer.subject)} nor a responder of its choice signed it")


def _signed(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    try:
        key = as_public_key(signer.public_key())
    except (Unacceptable, UnsupportedAlgorithm, ValueError):
        return False
    return verify_as(response.signature_algorithm_oid, key, response.tbs_response_bytes, response.signature)


def _may_sign(delegate: x509.Certificate) -> bool:
    extensions = delegate.extensions
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in purposes and usage.digital_signature


def _is_about(one: ocsp.OCSPSingleResponse, leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    algorithm = one.hash_algorithm
    if algorithm.name not in _NAMING_HASHES:
        return False
    asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, algorithm).build()
    return (one.serial_number, one.issuer_name_hash, one.issuer_key_hash) == (
        asked.serial_number,
        asked.issuer_name_hash,
        asked.issuer_key_hash,
    )


def _check_answer(one: ocsp.OCSPSingleResponse, source: str, leaf: x509.Certificate, now: datetime) -> None:
    if one.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        when = one.revocation_time_utc
        said = f" on {date(when)}" if when else ""
        raise AnchorRefused("revoked", f"{describe(leaf)} was revoked{said} ({source}); the peer needs a new one")
    if one.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise _unknown(source, f"the responder does not know {describe(leaf)}")
    if one.next_update_utc is None:
        raise _unknown(source, "it says no date until which it holds, so it would never be stale")
    if not one.this_update_utc <= now <= one.next_update_utc:
        raise _unknown(source, f"it holds from {date(one.this_update_utc)} to {date(one.next_update_utc)} only")
