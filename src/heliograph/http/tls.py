"""Mutual TLS inside a site: both ends show a certificate of the site's own CA, or there is no connection."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from heliograph.errors import ConfigurationError, NotPermitted
from heliograph.http.diagnosis import explain_caller
from heliograph.kme.identity import kme_id_from_certificate

__all__ = [
    "SKIP_SUITE",
    "SKIP_TLS12_SUITE",
    "client_tls",
    "note_refusal",
    "server_tls",
    "skip_server_tls",
    "tls13_client_tls",
    "tls13_server_tls",
]

SKIP_SUITE = "TLS_AES_256_GCM_SHA384"  # draft-cisco-skip-02, table 1: required
# Table 1: recommended, for TLS 1.2. The other one there has no forward secrecy: who learns the key provider's private
# key later can read every key that was recorded on its way before.
SKIP_TLS12_SUITE = "ECDHE-ECDSA-AES256-GCM-SHA384"

_TEXTS_MAX = 64  # our choice: how many texts about refused handshakes are remembered

_log = logging.getLogger("heliograph.kme")
_logged: dict[str, float] = {}  # a text, and when it was last logged


def note_refusal(text: str) -> None:
    """Log why a handshake failed: one line a second for each cause, since whoever reaches the port can fail one."""
    now = time.monotonic()
    if now - _logged.get(text, -1.0) >= 1.0:
        if len(_logged) >= _TEXTS_MAX:
            _logged.clear()
        _logged[text] = now
        _log.warning("TLS refused: %s", text)


def server_tls(certificate: str | Path, key: str | Path, ca: str | Path) -> ssl.SSLContext:
    """Return the KME's context: TLS 1.2 or newer (ETSI GS QKD 014 4), a client certificate of ``ca`` is required.

    All three are PEM files. Raises ConfigurationError naming the file and the remedy.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # Each connection of TLS 1.3 shows its certificate anew: there are no tickets. In TLS 1.2 OpenSSL remembers
    # sessions, and whose they are, for two hours; the ssl module cannot tell it not to.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.sslobject_class = _Telling
    return _loaded(context, Path(certificate), Path(key), Path(ca))


def tls13_server_tls(certificate: str | Path, key: str | Path, ca: str | Path) -> ssl.SSLContext:
    """Return ``server_tls`` for TLS 1.3 only (ETSI GS QKD 020, between key managers). Raises ConfigurationError."""
    context = server_tls(certificate, key, ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def tls13_client_tls(certificate: str | Path, key: str | Path, ca: str | Path, kme_id: str) -> ssl.SSLContext:
    """Return ``client_tls`` for TLS 1.3 only, towards the key manager ``kme_id``. Raises ConfigurationError."""
    context = client_tls(certificate, key, ca, kme_id)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def skip_server_tls(certificate: str | Path, key: str | Path, ca: str | Path, *, tls12: bool = False) -> ssl.SSLContext:
    """Return a SKIP key provider's context: TLS 1.3 with the required suite and no other, client certificates.

    ``tls12``: TLS 1.2 too, with its one recommended suite that has forward secrecy. The draft's external PSKs have a
    door of their own (``http.psk_door``). Raises ConfigurationError.
    """
    context = tls13_server_tls(certificate, key, ca)
    if tls12:
        public = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).public_key()
        if not isinstance(public, EllipticCurvePublicKey):
            raise ConfigurationError(
                f"{certificate}: holds no ECDSA key, which {SKIP_TLS12_SUITE} needs; issue an ECDSA certificate or "
                "take tls12 out of [skip]"
            )
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(SKIP_TLS12_SUITE)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.sslobject_class = _SkipSuite
    return context


class _Telling(ssl.SSLObject):
    """A server's TLS connection that says why it ends: to the caller by TLS's own alert, here in the log.

    asyncio drops the alert that OpenSSL has queued when a handshake fails. Told first to wait for more, it sends what
    is queued; then the caller closes, or speaks again and the error is raised, or the handshake's time is over.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            note_refusal(explain_caller(error))
            if error.reason == "HTTP_REQUEST":
                raise  # no alert is queued for who does not speak TLS
            raise ssl.SSLWantReadError from None


class _SkipSuite(_Telling):
    """A TLS connection that ends its handshake only with a suite that SKIP requires, or recommends for TLS 1.2."""

    def do_handshake(self) -> None:
        super().do_handshake()
        # The ssl module cannot choose among TLS 1.3 suites; it can refuse what was chosen.
        used = self.cipher()
        if used is None or used[0] not in {SKIP_SUITE, SKIP_TLS12_SUITE}:
            raise ssl.SSLError(f"SKIP needs {SKIP_SUITE}; the client does not offer it")


def client_tls(certificate: str | Path, key: str | Path, ca: str | Path, kme_id: str | None = None) -> ssl.SSLContext:
    """Return an SAE's context: the KME's certificate must be of ``ca`` and name the host that was dialled.

    With ``kme_id`` it must also name that KME (014 5.1), checked before the first byte of a request is sent.
    Raises ConfigurationError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if kme_id is not None:
        expected = kme_id

        class NamedKme(_NamedKme):
            kme_id = expected

        context.sslobject_class = NamedKme
    return _loaded(context, Path(certificate), Path(key), Path(ca))


class _NamedKme(ssl.SSLObject):
    """A TLS connection that ends its handshake only with the KME of one ID."""

    kme_id: ClassVar[str]

    def do_handshake(self) -> None:
        super().do_handshake()
        certificate = self.getpeercert(binary_form=True)
        try:
            found = kme_id_from_certificate(certificate or b"")
        except NotPermitted as error:
            raise ssl.SSLCertVerificationError(f"the KME's certificate names no KME: {error}") from None
        if found != self.kme_id:
            raise ssl.SSLCertVerificationError(f"the certificate is of KME {found}, not of {self.kme_id}")


def _loaded(context: ssl.SSLContext, certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path, what in ((certificate, "certificate"), (key, "private key"), (ca, "CA certificate")):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; a readable PEM {what} is needed there") from error
        marker = b"-----BEGIN CERTIFICATE-----" if path is not key else b"PRIVATE KEY-----"
        if marker not in content:
            raise ConfigurationError(
                f"{path}: holds no PEM {what}; convert it (openssl pkcs12, openssl x509 -inform der)"
            )
    if key.stat().st_mode & 0o077:
        raise ConfigurationError(
            f"{key}: others can read this private key; run chmod 600 {key}, replace it if they did"
        )
    if _is_encrypted(key):
        raise ConfigurationError(
            f"{key}: cannot be used, it is encrypted; decrypt it into a file of mode 0600 (openssl pkey -in {key})"
        )
    try:
        # Without a callback an encrypted key would make OpenSSL ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"{key}: does not belong to {certificate}; give the pair that was issued"
            ) from None
        raise ConfigurationError(
            f"{certificate}, {key}: cannot be used ({error.reason or 'damaged PEM'}); issue them anew"
        ) from None
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{ca}: cannot be used as CA ({error.reason or 'damaged PEM'}); copy it anew"
        ) from None
    return context


def _is_encrypted(key: Path) -> bool:
    content = key.read_bytes()
    return b"BEGIN ENCRYPTED PRIVATE KEY" in content or b"Proc-Type: 4,ENCRYPTED" in content  # PKCS#8; RFC 1421 4.6.1.1
