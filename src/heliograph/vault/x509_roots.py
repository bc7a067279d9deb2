"""The root that a site's own chain leads to: what its peer has to register, so what two people compare."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from heliograph.errors import ConfigurationError
from heliograph.vault.x509_credential import describe, fingerprint, read_chain
from heliograph.vault.x509_trust import anchor_fingerprint

__all__ = ["root_fingerprint"]


def root_fingerprint(chain_file: Path, root_file: Path | None) -> str:
    """Return ``anchor_fingerprint`` of the root: the chain's last certificate, or the one in ``root_file``.

    Raises ConfigurationError if the chain leaves its root out and no file is named, or if the two do not belong
    together.
    """
    last = read_chain(chain_file, "chain of certificates, the site's own first")[-1]
    if root_file is None:
        if last.subject != last.issuer:
            raise ConfigurationError(
                f"{chain_file}: its last certificate, {describe(last)}, is not a root: add the root at the end, or "
                "name it as root in [link.pki]"
            )
        return fingerprint(last)
    roots = read_chain(root_file, "root certificate")
    if last not in roots and not any(_issued(root, last) for root in roots):
        raise ConfigurationError(
            f"{root_file}: did not issue {describe(last)} of {chain_file}; name the chain's own root"
        )
    return anchor_fingerprint(root_file)


def _issued(root: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
