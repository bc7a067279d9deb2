"""Path validation (RFC 5280 6) by OpenSSL's verifier, and its verdicts as causes and sentences. Nothing by hand.

OpenSSL checks signatures, validity at the given moment, basic constraints, key usage of CAs, path lengths, name
constraints, unknown critical extensions, and revocation lists with their own signature and dates, all in strict mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from OpenSSL import crypto
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags
from OpenSSL.SSL import X509VerificationCodes as Codes

from heliograph.errors import AnchorRefused, RefusalCause
from heliograph.vault.x509_algorithms import SIGNATURE_OIDS, signature_name
from heliograph.vault.x509_credential import date, describe, one_line

__all__ = ["RevocationLists", "verified_path"]

_STRICT: Final = X509StoreFlags.X509_STRICT | X509StoreFlags.CHECK_SS_SIGNATURE
_EVERY_CRL: Final = X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL

_CAUSES: Final[dict[int, RefusalCause]] = {
    Codes.ERR_CERT_HAS_EXPIRED: "expired",
    Codes.ERR_CERT_NOT_YET_VALID: "not-yet-valid",
    Codes.ERR_CERT_REVOKED: "revoked",
    Codes.ERR_PATH_LENGTH_EXCEEDED: "path-length",
    Codes.ERR_CERT_CHAIN_TOO_LONG: "path-length",
    Codes.ERR_INVALID_CA: "wrong-key-usage",
    Codes.ERR_KEYUSAGE_NO_CERTSIGN: "wrong-key-usage",
    Codes.ERR_INVALID_PURPOSE: "wrong-key-usage",
    # Of strict mode, and not named by pyOpenSSL; in OpenSSL X509_V_ERR_PATHLEN_WITHOUT_KU_KEY_CERT_SIGN,
    # _KU_KEY_CERT_SIGN_INVALID_FOR_NON_CA, _CA_CERT_MISSING_KEY_USAGE (x509_vfy.h).
    81: "wrong-key-usage",
    82: "wrong-key-usage",
    92: "wrong-key-usage",
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: "untrusted",
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "untrusted",
    Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "untrusted",
    Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "untrusted",
    Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "untrusted",
    Codes.ERR_CERT_SIGNATURE_FAILURE: "untrusted",
    Codes.ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE: "untrusted",
    Codes.ERR_UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY: "untrusted",
    Codes.ERR_CERT_UNTRUSTED: "untrusted",
    Codes.ERR_CERT_REJECTED: "untrusted",
    Codes.ERR_SUBJECT_ISSUER_MISMATCH: "untrusted",
    Codes.ERR_AKID_SKID_MISMATCH: "untrusted",
    Codes.ERR_AKID_ISSUER_SERIAL_MISMATCH: "untrusted",
    Codes.ERR_PERMITTED_VIOLATION: "wrong-name",
    Codes.ERR_EXCLUDED_VIOLATION: "wrong-name",
    Codes.ERR_UNSUPPORTED_NAME_SYNTAX: "wrong-name",
} | dict.fromkeys(
    (
        Codes.ERR_UNABLE_TO_GET_CRL,
        Codes.ERR_UNABLE_TO_GET_CRL_ISSUER,
        Codes.ERR_UNABLE_TO_DECRYPT_CRL_SIGNATURE,
        Codes.ERR_CRL_SIGNATURE_FAILURE,
        Codes.ERR_CRL_NOT_YET_VALID,
        Codes.ERR_CRL_HAS_EXPIRED,
        Codes.ERR_ERROR_IN_CRL_LAST_UPDATE_FIELD,
        Codes.ERR_ERROR_IN_CRL_NEXT_UPDATE_FIELD,
        Codes.ERR_KEYUSAGE_NO_CRL_SIGN,
        Codes.ERR_UNHANDLED_CRITICAL_CRL_EXTENSION,
        Codes.ERR_DIFFERENT_CRL_SCOPE,
        Codes.ERR_CRL_PATH_VALIDATION_ERROR,
    ),
    "revocation-unknown",
)


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """What is known of revocation. ``required``: every CA of a path needs a current list here.

    Without it a CA may have no list at all; a list that is here counts, and must be current, in any case.
    """

    lists: tuple[x509.CertificateRevocationList, ...]
    required: bool
    source: str


def verified_path(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    revocation: RevocationLists,
    now: datetime,
) -> tuple[x509.Certificate, ...]:
    """Return the path from ``leaf`` to one of ``anchors`` that OpenSSL found good at ``now``, by way of ``others``.

    Raises AnchorRefused with its cause.
    """
    path = _verify(leaf, others, anchors, (), 0, now)
    if not revocation.lists and not revocation.required:
        return path
    issuers = {certificate.issuer for certificate in path}
    lists = [one for one in revocation.lists if one.issuer in issuers]
    for one in lists:
        _check_list(one, revocation.source)
    try:
        return _verify(leaf, others, anchors, lists, _EVERY_CRL, now)
    except _ListMissing as why:
        if revocation.required:
            raise AnchorRefused(why.cause, f"{why}; fetch the CA's current list into {revocation.source}") from None
    # A CA has no list, and may: each certificate whose CA has one is checked against it.
    for index, certificate in enumerate(path[:-1]):
        if any(one.issuer == certificate.issuer for one in lists):
            _verify(certificate, (*others, *path[index:]), anchors, lists, X509StoreFlags.CRL_CHECK, now)
    return path


class _ListMissing(AnchorRefused):
    """OpenSSL found no revocation list of a certificate's issuer."""


def _check_list(one: x509.CertificateRevocationList, source: str) -> None:
    whose = f"the revocation list of {one_line(one.issuer)} in {source}"
    if one.signature_algorithm_oid not in SIGNATURE_OIDS:
        kind = signature_name(one.signature_algorithm_oid)
        raise AnchorRefused("weak-algorithm", f"{whose} is signed with {kind}, which is not accepted")
    if one.next_update_utc is None:
        # RFC 5280 5.1.2.5 demands the date; OpenSSL would take such a list for ever.
        raise AnchorRefused("revocation-unknown", f"{whose} says no date of the next one; it would never be stale")


def _verify(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    lists: Sequence[x509.CertificateRevocationList],
    flags: int,
    now: datetime,
) -> tuple[x509.Certificate, ...]:
    try:
        store = X509Store()
        store.set_flags(_STRICT | flags)
        store.set_time(now)
        for anchor in anchors:
            store.add_cert(X509.from_cryptography(anchor))
        for one in lists:
            store.add_crl(one)
        chain = [X509.from_cryptography(certificate) for certificate in others]
        found = X509StoreContext(store, X509.from_cryptography(leaf), chain).get_verified_chain()
        return tuple(certificate.to_cryptography() for certificate in found)
    except X509StoreContextError as error:
        raise _refusal(error, lists) from None
    except crypto.Error:
        raise AnchorRefused("malformed", f"{describe(leaf)}: OpenSSL cannot read its chain; issue it anew") from None


def _refusal(error: X509StoreContextError, lists: Sequence[x509.CertificateRevocationList]) -> AnchorRefused:
    code = error.errors[0]
    at = error.certificate.to_cryptography()
    which, issuer = describe(at), one_line(at.issuer)
    cause = _CAUSES.get(code, "malformed")
    if code == Codes.ERR_UNABLE_TO_GET_CRL:
        return _ListMissing(cause, f"{which}: there is no revocation list of its issuer {issuer}")
    if code == Codes.ERR_CERT_REVOKED:
        return AnchorRefused(cause, f"{which} was revoked{_revoked_on(at, lists)}; the peer needs a new one")
    if code in {Codes.ERR_CRL_HAS_EXPIRED, Codes.ERR_CRL_NOT_YET_VALID}:
        dates = [(one.last_update_utc, one.next_update_utc) for one in lists if one.issuer == at.issuer]
        shown = "; ".join(f"{date(first)} to {date(last) if last else 'no date'}" for first, last in dates)
        return AnchorRefused(
            cause, f"{which}: the revocation list of {issuer} is valid from {shown}; fetch the current one"
        )
    if cause == "expired":
        text = f"{which} expired on {date(at.not_valid_after_utc)}; renew it, or set this machine's clock right"
    elif cause == "not-yet-valid":
        text = f"{which} is valid from {date(at.not_valid_before_utc)}; wait, or set this machine's clock right"
    elif cause == "path-length":
        text = f"{which}: more CAs stand below its CA than that one's path length allows; have it issued by a CA above"
    elif cause == "wrong-key-usage":
        text = f"{which}: {error.errors[2]}; only a CA, marked as one and allowed keyCertSign, may issue certificates"
    elif cause == "untrusted":
        text = (
            f"{which}, issued by {issuer}, does not lead to the registered CA ({error.errors[2]}); "
            "the peer must send its intermediate certificates, or register its CA after comparing fingerprints"
        )
    else:
        text = f"{which}: {error.errors[2]}; have it issued anew"
    return AnchorRefused(cause, text)


def _revoked_on(certificate: x509.Certificate, lists: Sequence[x509.CertificateRevocationList]) -> str:
    for one in lists:
        if one.issuer == certificate.issuer:
            entry = one.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                return f" on {date(entry.revocation_date_utc)}"
    return ""
