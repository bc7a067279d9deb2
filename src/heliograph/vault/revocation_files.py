"""Revocation lists and OCSP responses as an operator brings them: sound, and never older than what is there.

Who signed them, and whether they are current, is decided each time a peer's chain is checked; here only what no later
check could undo: a file that says nothing, or one that would take a revocation back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509 import ocsp

from heliograph.errors import ConfigurationError
from heliograph.vault.certificate_parts import BACKDATING
from heliograph.vault.x509_credential import date, one_line, read_file

__all__ = ["check_crl", "check_ocsp_response", "tells_of_a_revocation"]

_CRL_BYTES_MAX = 16 << 20
_OCSP_BYTES_MAX = 64 << 10
_END = b"-----END X509 CRL-----"


def check_crl(path: Path | None, older: Path | None = None) -> None:
    """Require sound PEM lists in ``path``, of every issuer in ``older`` and none of them older than there.

    Raises ConfigurationError naming the file and the issuer.
    """
    if path is None:
        return
    lists, before = _lists(path), {} if older is None else _lists(older)
    for issuer, moment in before.items():
        if issuer not in lists:
            raise ConfigurationError(
                f"{path}: the list of {issuer} is missing, which is registered; put all in one file"
            )
        if lists[issuer] < moment:
            raise ConfigurationError(
                f"{path}: the list of {issuer} is of {date(lists[issuer])}, older than the registered one of "
                f"{date(moment)}: it could take a revocation back; fetch the newest"
            )


def _lists(path: Path) -> dict[str, datetime]:
    content = read_file(path, "revocation list", _CRL_BYTES_MAX)
    found: dict[str, datetime] = {}
    blocks = content.split(_END)[:-1]
    try:
        for block in blocks:
            one = x509.load_pem_x509_crl(block[block.index(b"-----BEGIN X509 CRL-----") :] + _END + b"\n")
            issuer = one_line(one.issuer)
            _check_date(path, f"the list of {issuer}", one.last_update_utc)
            found[issuer] = max(one.last_update_utc, found.get(issuer, one.last_update_utc))
    except ValueError:
        found = {}
    if not found:
        raise ConfigurationError(
            f"{path}: holds no sound PEM revocation lists (X509 CRL); fetch them from the peer's CA"
        )
    return found


def _check_date(path: Path, what: str, made: datetime) -> None:
    """Refuse what is made later than now: nothing genuine could follow it, whoever signed it."""
    if made > datetime.now(UTC) + BACKDATING:
        raise ConfigurationError(
            f"{path}: {what} is of {date(made)}, later than this machine's clock: set the clock, or fetch it from the "
            "peer's CA again"
        )


def check_ocsp_response(path: Path | None, older: Path | None = None) -> None:
    """Require a successful OCSP response, made no earlier than the one in ``older``. Raises ConfigurationError."""
    if path is None:
        return
    made, before = _produced(path), None if older is None else _produced(older)
    if before is not None and made < before:
        raise ConfigurationError(
            f"{path}: is of {date(made)}, older than the registered one of {date(before)}; ask the responder again"
        )


def tells_of_a_revocation(path: Path) -> bool:
    """Return whether an OCSP response calls any certificate revoked. Raises ConfigurationError if it is none."""
    return any(one.certificate_status is ocsp.OCSPCertStatus.REVOKED for one in _response(path).responses)


def _produced(path: Path) -> datetime:
    return _response(path).produced_at_utc


def _response(path: Path) -> ocsp.OCSPResponse:
    content = read_file(path, "OCSP response", _OCSP_BYTES_MAX)
    try:
        response = ocsp.load_der_ocsp_response(content)
        if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
            _check_date(path, "the response", response.produced_at_utc)
            return response
    except ValueError:
        pass
    raise ConfigurationError(f"{path}: is no successful OCSP response in DER; ask the responder again")
