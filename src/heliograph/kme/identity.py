"""Who is calling: identities are read from certificates, never from what a request says (ETSI GS QKD 014 5.1).

Three schemes keep three uses apart: an SAE, a KME, and a site as one end of a link. No certificate has two of them.
"""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from cryptography import x509

from heliograph.errors import NotPermitted

__all__ = [
    "KME_SCHEME",
    "SAE_SCHEME",
    "SITE_SCHEME",
    "identity_uri",
    "kme_id_from_certificate",
    "sae_id_from_certificate",
    "site_name_from_certificate",
]

SAE_SCHEME = "sae"
KME_SCHEME = "kme"
SITE_SCHEME = "site"


def identity_uri(scheme: str, name: str) -> str:
    """Return the URI ``<scheme>:<name>``, the name percent-encoded (RFC 3986 2.1): SAE and KME IDs are format free."""
    return f"{scheme}:{quote(name, safe='')}"


def sae_id_from_certificate(certificate: x509.Certificate | bytes) -> str:
    """Return the SAE ID of a certificate (DER or parsed) that has exactly one URI name, ``sae:<id>``.

    Raises NotPermitted for no such name, for more than one, and for a name that cannot be an ID. The common name
    is never looked at.
    """
    return _identity(certificate, SAE_SCHEME, "SAE")


def kme_id_from_certificate(certificate: x509.Certificate | bytes) -> str:
    """Return the KME ID of a certificate with exactly one URI name, ``kme:<id>``. Raises NotPermitted."""
    return _identity(certificate, KME_SCHEME, "KME")


def site_name_from_certificate(certificate: x509.Certificate | bytes) -> str:
    """Return the site's name of a certificate with exactly one URI name, ``site:<name>``. Raises NotPermitted."""
    return _identity(certificate, SITE_SCHEME, "site")


def _identity(certificate: x509.Certificate | bytes, scheme: str, what: str) -> str:
    try:
        parsed = x509.load_der_x509_certificate(certificate) if isinstance(certificate, bytes) else certificate
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise NotPermitted(
            f"the certificate cannot be read; issue one with the URI name {scheme}:<{what} ID>"
        ) from None
    if len(uris) != 1 or not uris[0].startswith(f"{scheme}:"):
        raise NotPermitted(
            f"the certificate has {len(uris)} URI names; exactly one is needed, {scheme}:<{what} ID>"
            if len(uris) != 1
            else f"the certificate's URI name is not of the form {scheme}:<{what} ID>"
        )
    try:
        name = unquote_to_bytes(uris[0].removeprefix(f"{scheme}:")).decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not name.strip() or not name.isprintable():
        raise NotPermitted(f"the certificate's {what} ID is blank or not printable text")
    return name
