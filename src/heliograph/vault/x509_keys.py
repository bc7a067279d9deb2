"""A site's private key for the bootstrap by PKI, and the public key of a peer whose certificate was believed."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from heliograph.errors import AuthenticationFailed, ConfigurationError
from heliograph.vault.x509_algorithms import (
    LinkPrivateKey,
    Unacceptable,
    algorithm_of,
    as_private_key,
    as_public_key,
    sign,
    verify,
)
from heliograph.vault.x509_credential import describe, encode_chain, fingerprint, read_chain

__all__ = ["X509Signer", "X509Verifier", "read_key"]

_PKCS8 = b"-----BEGIN PRIVATE KEY-----"
_KEY_BYTES_MAX = 64 * 1024


class X509Signer:
    """Implements ``Signer`` from two files: a PEM chain (leaf first, root optional) and its plain PKCS #8 key, 0600."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both and check that they belong together. Raises ConfigurationError naming the file and the remedy."""
        chain = read_chain(certificate, "chain of certificates, the site's own first")
        for lower, upper in pairwise(chain):
            try:
                lower.verify_directly_issued_by(upper)
            except (InvalidSignature, ValueError, TypeError):
                raise ConfigurationError(
                    f"{certificate}: {describe(upper)} did not issue {describe(lower)}; "
                    "put the site's own certificate first and each issuer after what it issued"
                ) from None
        self._key = read_key(key)
        if chain[0].public_key() != self._key.public_key():
            raise ConfigurationError(f"{key}: does not belong to the first certificate of {certificate}; give the pair")
        self._algorithm = algorithm_of(self._key)
        try:
            self._credential = encode_chain(chain)
        except ConfigurationError as why:
            raise ConfigurationError(f"{certificate}: {why}") from None

    @property
    def algorithm(self) -> str:
        """One of the five names of ``x509_algorithms.ALGORITHMS``."""
        return self._algorithm

    @property
    def credential(self) -> bytes:
        """The chain as it is sent (``x509_credential``)."""
        return self._credential

    def sign(self, message: bytes) -> bytes:
        """Return a signature over ``message``, which the caller has labelled with its purpose."""
        return sign(self._key, message)


class X509Verifier:
    """Implements ``Verifier`` for the key of one certificate. Whether to believe it is not decided here."""

    def __init__(self, certificate: x509.Certificate) -> None:
        """Take the key of a certificate that ``decode_chain`` or ``read_chain`` has passed."""
        self._key = as_public_key(certificate.public_key())
        self._algorithm = algorithm_of(self._key)
        self._fingerprint = fingerprint(certificate)

    @property
    def algorithm(self) -> str:
        """As for the signer."""
        return self._algorithm

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the DER certificate, lower-case hexadecimal."""
        return self._fingerprint

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return nothing for a good signature. Raises AuthenticationFailed for any other bytes."""
        if not verify(self._key, message, signature):
            raise AuthenticationFailed(
                f"the {self._algorithm} signature does not match the certificate {self._fingerprint[:16]}...: "
                "the message was damaged or forged"
            )


def read_key(path: Path) -> LinkPrivateKey:
    """Return the private key of a plain PKCS #8 PEM file of mode 0600. Raises ConfigurationError, never quoting it."""
    try:
        with path.open("rb") as file:
            # Asked of the open file, so that it cannot be exchanged in between.
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigurationError(
                    f"{path}: others can read this private key; run chmod 600 {path}, replace the key if they did"
                )
            content = file.read(_KEY_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; a readable private key is needed there") from error
    if _PKCS8 not in content or len(content) > _KEY_BYTES_MAX:
        raise ConfigurationError(
            f"{path}: holds no plain PEM key (BEGIN PRIVATE KEY); convert it with openssl pkcs8 -topk8 -nocrypt"
        )
    try:
        return as_private_key(serialization.load_pem_private_key(content, password=None))
    except Unacceptable as why:
        raise ConfigurationError(f"{path}: {why}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path}: the private key in it cannot be read; issue a new one") from None
