"""The five kinds of key a site may prove itself with, and the signatures a chain may carry. Everything else is refused.

ECDSA on P-256 and P-384 (FIPS 186-5), Ed25519 (RFC 8032), ML-DSA-65 and ML-DSA-87 (FIPS 204, pure, no context).
Left out on purpose: RSA, SHA-1, P-521, Brainpool curves, Ed448, ML-DSA-44 (ADR 0021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.x509.oid import ObjectIdentifier, SignatureAlgorithmOID

__all__ = [
    "ALGORITHMS",
    "SIGNATURE_OIDS",
    "LinkPrivateKey",
    "LinkPublicKey",
    "SigningHash",
    "Unacceptable",
    "algorithm_of",
    "as_private_key",
    "as_public_key",
    "certificate_hash",
    "generate_key",
    "sign",
    "signature_name",
    "verify",
    "verify_as",
]

LinkPrivateKey: TypeAlias = (
    ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
)
LinkPublicKey: TypeAlias = (
    ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
)


SigningHash: TypeAlias = hashes.SHA256 | hashes.SHA384 | hashes.SHA512


@dataclass(frozen=True, slots=True)
class _Curve:
    """A curve and the hash that ECDSA uses with it, in messages and in certificates we issue."""

    curve: ec.EllipticCurve
    hash: SigningHash


_CURVES: Final = {
    "ecdsa-p256-sha256": _Curve(ec.SECP256R1(), hashes.SHA256()),
    "ecdsa-p384-sha384": _Curve(ec.SECP384R1(), hashes.SHA384()),
}
_OTHERS: Final = {
    "ed25519": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    "ml-dsa-65": (mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
    "ml-dsa-87": (mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
}
ALGORITHMS: Final = (*_CURVES, *_OTHERS)

# What a CA may have signed certificates, revocation lists and OCSP responses with.
_ECDSA_OIDS: Final[dict[ObjectIdentifier, SigningHash]] = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: hashes.SHA256(),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: hashes.SHA384(),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: hashes.SHA512(),
}
_OTHER_OIDS: Final = {
    SignatureAlgorithmOID.ED25519: "ed25519",
    SignatureAlgorithmOID.ML_DSA_65: "ml-dsa-65",
    SignatureAlgorithmOID.ML_DSA_87: "ml-dsa-87",
}
SIGNATURE_OIDS: Final = frozenset({*_ECDSA_OIDS, *_OTHER_OIDS})


class Unacceptable(Exception):
    """A key or a signature of a kind that is not on the list; the text names the kind."""


def algorithm_of(key: object) -> str:
    """Return the algorithm's name of a private or public key. Raises Unacceptable."""
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        for name, entry in _CURVES.items():
            if entry.curve.name == key.curve.name:
                return name
    for name, kinds in _OTHERS.items():
        if isinstance(key, kinds):
            return name
    raise Unacceptable(f"{_name(key)} keys are not accepted; use one of {', '.join(ALGORITHMS)}")


def _name(key: object) -> str:
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return {"secp521r1": "P-521"}.get(key.curve.name, key.curve.name)
    for kinds, name in (
        ((rsa.RSAPrivateKey, rsa.RSAPublicKey), "RSA"),
        ((dsa.DSAPrivateKey, dsa.DSAPublicKey), "DSA"),
        ((ed448.Ed448PrivateKey, ed448.Ed448PublicKey), "Ed448"),
        ((mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey), "ML-DSA-44"),
    ):
        if isinstance(key, kinds):
            return name
    return type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey")


def as_private_key(key: object) -> LinkPrivateKey:
    """Return ``key`` if it is one of the five kinds. Raises Unacceptable."""
    algorithm_of(key)
    return key  # type: ignore[return-value]  # algorithm_of has just decided this


def as_public_key(key: object) -> LinkPublicKey:
    """Return ``key`` if it is one of the five kinds. Raises Unacceptable."""
    algorithm_of(key)
    return key  # type: ignore[return-value]  # algorithm_of has just decided this


def generate_key(algorithm: str) -> LinkPrivateKey:
    """Return a fresh private key. Raises Unacceptable for a name that is not in ``ALGORITHMS``."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm].curve)
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "ml-dsa-65":
        return mldsa.MLDSA65PrivateKey.generate()
    if algorithm == "ml-dsa-87":
        return mldsa.MLDSA87PrivateKey.generate()
    raise Unacceptable(f"{algorithm!r} is no algorithm here; use one of {', '.join(ALGORITHMS)}")


def certificate_hash(key: LinkPrivateKey) -> SigningHash | None:
    """Return the hash with which ``key`` signs certificates; None where the algorithm brings its own."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _CURVES[algorithm_of(key)].hash
    return None


def sign(key: LinkPrivateKey, message: bytes) -> bytes:
    """Return a signature: DER of (r, s) for ECDSA, the fixed-length string of the standard for the others."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(_CURVES[algorithm_of(key)].hash))
    return key.sign(message)


def verify(key: LinkPublicKey, message: bytes, signature: bytes) -> bool:
    """Tell whether ``signature``, as ``sign`` makes it, is good; False for any bytes that are none."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _verify_ecdsa(key, message, signature, _CURVES[algorithm_of(key)].hash)
    try:
        key.verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_as(oid: ObjectIdentifier, key: LinkPublicKey, message: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` is good and of the kind that ``oid`` names (RFC 5280 4.1.1.2), for ECDSA its hash."""
    hash_ = _ECDSA_OIDS.get(oid)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return hash_ is not None and _verify_ecdsa(key, message, signature, hash_)
    return _OTHER_OIDS.get(oid) == algorithm_of(key) and verify(key, message, signature)


def _verify_ecdsa(key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes, hash_: SigningHash) -> bool:
    try:
        key.verify(signature, message, ec.ECDSA(hash_))
    except (InvalidSignature, ValueError):
        return False
    return True


def signature_name(oid: ObjectIdentifier) -> str:
    """Return a signature algorithm's name for people, or its number."""
    names = {value: name for name, value in vars(SignatureAlgorithmOID).items() if isinstance(value, ObjectIdentifier)}
    return names.get(oid, oid.dotted_string).replace("_", "-")
