"""Whether a chain of certificates speaks for the registered peer: the PKI trust anchor of one link (ADR 0021)."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from heliograph.errors import AnchorRefused, ConfigurationError, NotPermitted
from heliograph.kme.identity import SITE_SCHEME, identity_uri, site_name_from_certificate
from heliograph.vault.x509_chain import RevocationLists, verified_path
from heliograph.vault.x509_credential import decode_chain, describe, read_chain, read_file
from heliograph.vault.x509_keys import X509Verifier
from heliograph.vault.x509_ocsp import check_ocsp

__all__ = ["LINK_AUTHENTICATION", "X509Trust", "anchor_fingerprint"]

# The purpose "one end of a QKD link". An identifier under 2.25 is a UUID and needs no registry (ITU-T X.667 8).
LINK_AUTHENTICATION: Final = x509.ObjectIdentifier("2.25.308090153214774475228104295654202442477")
# With one of these a certificate could also open TLS, or anything: a link's certificate is for the link alone.
_OTHER_PURPOSES: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS servers",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS clients",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any purpose",
}
_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_CRL_BYTES_MAX: Final = 16 << 20
_OCSP_BYTES_MAX: Final = 64 << 10


class X509Trust:
    """Implements ``PeerTrust``: the peer site is ``name``, and one of the CAs in ``ca`` vouches for it.

    ``ca``: self-signed CA certificates, PEM. ``crl``: revocation lists, PEM, any number in one file. ``ocsp``: a
    response about the peer's certificate, DER. With ``crl_required`` every CA of the chain needs a current list;
    without, a CA may have none. All files are read at each ``accept``: a new list counts at once.
    """

    def __init__(
        self, ca: Path, name: str, crl: Path | None = None, ocsp: Path | None = None, *, crl_required: bool = True
    ) -> None:
        """Check the CAs. Raises ConfigurationError; also if lists are required and no file of them is named."""
        if crl is None and crl_required:
            raise ConfigurationError(
                f"{ca}: revocation lists are required and no file is named; name one, or say that none is required"
            )
        self._ca, self._name, self._crl, self._ocsp, self._crl_required = ca, name, crl, ocsp, crl_required
        _read_anchors(ca)

    def accept(self, credential: bytes, now: float) -> X509Verifier:
        """Return the leaf's key if the chain is good at ``now`` (seconds since 1970) and speaks for the peer.

        Raises AnchorRefused with its cause; ConfigurationError if the CAs cannot be read.
        """
        anchors = _read_anchors(self._ca)
        leaf, *others = decode_chain(credential)
        moment = datetime.fromtimestamp(now, UTC)
        revocation = self._read_lists()
        path = verified_path(leaf, others, anchors, revocation, moment)
        _check_usage(leaf)
        self._check_name(leaf)
        if self._ocsp is not None:
            check_ocsp(
                _read_revocation(self._ocsp, "OCSP response", _OCSP_BYTES_MAX),
                str(self._ocsp),
                leaf,
                path[1],
                lambda delegate: verified_path(delegate, others, anchors, revocation, moment),
                moment,
            )
        return X509Verifier(leaf)

    def recall(self, credential: bytes) -> X509Verifier:
        """Return the leaf's key of a credential that was accepted before: nothing about trust is checked.

        Raises AnchorRefused ("malformed", "weak-algorithm") for bytes that cannot have been accepted.
        """
        return X509Verifier(decode_chain(credential)[0])

    def _check_name(self, leaf: x509.Certificate) -> None:
        try:
            found = site_name_from_certificate(leaf)
        except NotPermitted as why:
            raise AnchorRefused("wrong-name", f"{describe(leaf)}: {why}") from None
        if found != self._name:
            raise AnchorRefused(
                "wrong-name",
                f"{describe(leaf)} is of site {found!r}; the registered peer is {self._name!r}, "
                f"whose certificate has the URI name {identity_uri(SITE_SCHEME, self._name)}",
            )

    def _read_lists(self) -> RevocationLists:
        if self._crl is None:
            return RevocationLists((), self._crl_required, "no file")
        content = _read_revocation(self._crl, "revocation list", _CRL_BYTES_MAX)
        blocks = _CRL.findall(content)
        try:
            lists = tuple(x509.load_pem_x509_crl(block) for block in blocks)
        except ValueError:
            lists = ()
        # A list cut off at its end must not pass for one that was never there.
        if not lists or content.count(b"-----BEGIN X509 CRL-----") != len(lists):
            raise AnchorRefused(
                "revocation-unknown", f"{self._crl}: holds no sound PEM revocation lists (X509 CRL); fetch them anew"
            )
        return RevocationLists(lists, self._crl_required, str(self._crl))


def anchor_fingerprint(path: Path) -> str:
    """Return SHA-256 over the CA certificates (DER) of a file, in hexadecimal: what two people compare.

    For one certificate it is its usual fingerprint. Several are ordered by their bytes, so that the order in the file
    does not matter. Raises ConfigurationError.
    """
    parts = sorted({certificate.public_bytes(Encoding.DER) for certificate in _read_anchors(path)})
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _read_anchors(path: Path) -> tuple[x509.Certificate, ...]:
    anchors = read_chain(path, "self-signed certificate of the peer's CA")
    for certificate in anchors:
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            is_ca = constraints.ca and certificate.subject == certificate.issuer
        except x509.ExtensionNotFound:
            is_ca = False
        if not is_ca:
            raise ConfigurationError(
                f"{path}: {describe(certificate)} is not the self-signed certificate of a CA; put the root there"
            )
    return anchors


def _read_revocation(path: Path, what: str, bytes_max: int) -> bytes:
    # Not a ConfigurationError: a list that is gone for an hour refuses the peer for that hour, and no longer.
    try:
        return read_file(path, what, bytes_max)
    except ConfigurationError as why:
        raise AnchorRefused("revocation-unknown", str(why)) from None


def _check_usage(leaf: x509.Certificate) -> None:
    constraints = usage = purposes = None
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            purposes = set(extension.value)
    if constraints is not None and constraints.ca:
        raise AnchorRefused("wrong-key-usage", f"{describe(leaf)} is of a CA, not of a site; send the site's own first")
    if usage is None or not usage.digital_signature:
        raise AnchorRefused(
            "wrong-key-usage", f"{describe(leaf)} may not sign (key usage digitalSignature); have it issued with it"
        )
    if purposes is None:
        return
    others = [name for oid, name in _OTHER_PURPOSES.items() if oid in purposes]
    if others or LINK_AUTHENTICATION not in purposes:
        meant = " and ".join(others) or "something else"
        raise AnchorRefused(
            "wrong-key-usage",
            f"{describe(leaf)} is for {meant}; a link's certificate has the extended key usage "
            f"{LINK_AUTHENTICATION.dotted_string} and none of TLS, or no extended key usage",
        )
