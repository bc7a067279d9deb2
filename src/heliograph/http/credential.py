"""What an SAE can know of its own certificate and CA before it dials: purpose, validity, identity."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from heliograph.errors import ConfigurationError, NotPermitted
from heliograph.kme.identity import sae_id_from_certificate

__all__ = ["check_credential"]


def check_credential(certificate: str | Path, ca: str | Path, moment: datetime | None = None) -> str | None:
    """Return the SAE ID of a client's PEM certificate; None if it has no URI name ``sae:<id>`` (another KME's way).

    ``moment``: when it must be valid, now if not given. Raises ConfigurationError with the remedy.
    """
    now = moment or datetime.now(UTC)
    own, authority = _first(Path(certificate)), _first(Path(ca))
    if own.not_valid_before_utc > now and authority.not_valid_before_utc > now:
        raise ConfigurationError(
            f"this machine's clock says {_text(now)}, before {ca} and {certificate} were made "
            f"({_text(own.not_valid_before_utc)}); correct the clock"
        )
    for path, what, found in ((ca, "CA certificate", authority), (certificate, "client certificate", own)):
        if found.not_valid_after_utc < now:
            raise ConfigurationError(
                f"{path}: the {what} has expired on {_text(found.not_valid_after_utc)}, says this machine's clock "
                f"({_text(now)}); have it renewed, or correct the clock"
            )
        if found.not_valid_before_utc > now:
            raise ConfigurationError(
                f"{path}: the {what} is not valid before {_text(found.not_valid_before_utc)}, and this machine's clock "
                f"says {_text(now)}; correct the clock"
            )
    _check_purpose(certificate, own)
    try:
        return sae_id_from_certificate(own)
    except NotPermitted:
        return None


def _check_purpose(path: str | Path, own: x509.Certificate) -> None:
    try:
        usages = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # for everything
    except ValueError:
        raise ConfigurationError(f"{path}: its extensions cannot be read; have it issued anew") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise ConfigurationError(
            f"{path}: is not for a client (extended key usage clientAuth); give the SAE's certificate, not the KME's"
        )


def _first(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; a readable PEM certificate is needed there") from None
    except (ValueError, IndexError):
        raise ConfigurationError(f"{path}: holds no PEM certificate that can be read; copy it anew") from None


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
