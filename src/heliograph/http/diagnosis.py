"""Why a connection to a key manager failed, in one line with its remedy: for the SAE that dials, and for the KME.

What OpenSSL and the system say is turned into what a person can do; nothing is asked of the other end for it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from types import MappingProxyType

__all__ = ["clock", "explain", "explain_caller"]

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _PURPOSE, _HOST, _IP = 9, 10, 26, 62, 64
_UNKNOWN_CA = frozenset({2, 18, 19, 20, 21})

# OpenSSL's names for an alert that the other end sent, or for what it found instead of TLS.
_ALERTS = MappingProxyType(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it was shown no client certificate; give the SAE's certificate and key",
        "SSLV3_ALERT_HANDSHAKE_FAILURE": "it found nothing in common with this client, or was shown no client "
        "certificate; give the SAE's certificate and key, and use TLS 1.2 or newer",
        "TLSV1_ALERT_UNKNOWN_CA": "it does not accept this client's certificate, which is not of its CA; use one that "
        "the KME's own site issued",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that this client's certificate has expired or is not valid yet; "
        "have it renewed, or correct the clock of the KME's machine",
        "SSLV3_ALERT_CERTIFICATE_REVOKED": "it says that this client's certificate was revoked; have another issued",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it says that this certificate is not for a client (extended key usage "
        "clientAuth); use the SAE's own, not the KME's",
        "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept this client's certificate, or what comes with it; have it "
        "issued anew by the KME's site, for clients",
        "TLSV1_ALERT_DECRYPT_ERROR": "it could not check this client's signature; give the certificate and key that "
        "were issued together",
        "TLSV1_ALERT_PROTOCOL_VERSION": "it and this client have no version of TLS in common; TLS 1.2 or newer is used",
    }
)
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNEXPECTED_MESSAGE"})


def clock() -> str:
    """Return what this machine's clock says, for messages about validity."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def explain(error: BaseException) -> str:
    """Return cause and remedy of a client's failed connection or exchange."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the KME's certificate is refused: {_refused(cause)}"
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return f"no answer: {_alert(cause)}"
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return f"no answer: the name does not resolve ({_line(cause)}); correct it, or dial the address"
        if isinstance(cause, ConnectionRefusedError):
            return "no answer: nobody listens there; start the KME, or correct host and port"
        if isinstance(cause, FileNotFoundError):
            return "no answer: there is no such socket; start the KME with [boundary] socket, or correct the path"
        if isinstance(cause, PermissionError):
            return f"no answer: {_line(cause)}; ask as a user whom its directory and [boundary] users let in"
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return "no answer in time; check host, port and firewall, and that TLS is spoken there"
    return (
        f"no answer ({_line(error)}): it closed the connection; check that the KME runs there, and that it accepts "
        "this client's certificate (its CA, validity, extended key usage clientAuth)"
    )


def explain_caller(error: ssl.SSLError) -> str:
    """Return why a server refused a handshake, for its log; names nothing but the cause and the remedy."""
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the caller showed no client certificate; give it one of this site's CA"
    if error.reason == "HTTP_REQUEST":
        return "the caller speaks plain HTTP; it has to dial https://"
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in _UNKNOWN_CA:
            return "the caller's certificate is not of this site's CA; issue it one"
        if code == _EXPIRED:
            return f"the caller's certificate has expired, says this machine's clock ({clock()}); renew it"
        if code == _NOT_YET_VALID:
            return (
                f"the caller's certificate is not valid yet, says this machine's clock ({clock()}); correct the clock"
            )
        if code == _PURPOSE:
            return "the caller's certificate is not for a client (extended key usage clientAuth)"
    return _alert(error).replace("it ", "the caller ", 1)


def _refused(error: ssl.SSLCertVerificationError) -> str:
    code = getattr(error, "verify_code", None)
    if code in _UNKNOWN_CA:
        return "it is not of the CA that was given; give the ca.pem of the site that runs this KME"
    if code == _EXPIRED:
        return f"it has expired, says this machine's clock ({clock()}); have it renewed there, or correct the clock"
    if code == _NOT_YET_VALID:
        return f"it is not valid yet, says this machine's clock ({clock()}); correct the clock"
    if code == _PURPOSE:
        return "it is not for a server (extended key usage serverAuth); have one issued there that is"
    if code in {_HOST, _IP}:
        return f"{error.verify_message.rstrip('.')}; dial a name that it has, or have it issued with this one"
    # Our own checks (a certificate of another KME) have no code and say what they found.
    found = str(error.args[0]) if error.args and code is None else _line(error)
    return f"{found}; dial the right one, or give its own KME ID"


def _alert(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if reason in _ALERTS:
        return _ALERTS[reason]
    if reason in _NOT_TLS:
        return "it does not speak TLS; correct the port, or use the KME's Unix socket as a socket"
    return f"TLS failed ({reason or _line(error)}); check that the KME runs there, and its log"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "os_error", None)  # aiohttp's errors wrap the system's, and inherit its classes
        if not isinstance(inner, BaseException):
            yield error
            inner = error.__cause__ or error.__context__
        error = inner


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
