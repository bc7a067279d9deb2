"""Diffie-Hellman and ML-KEM as methods of key establishment, each with a fresh key for every offer and answer.

Private keys are made of bytes from this site's random source; ML-KEM's encapsulation draws inside OpenSSL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heliograph.errors import RemoteProtocolError
from heliograph.ports import KeyEstablishment, RandomSource

__all__ = ["X25519", "EllipticCurve", "MlKem", "exchange_methods"]

_SEED_BYTES: Final = 64  # FIPS 203: d and z
# SP 800-186; more bytes than the order has, reduced: the bias is below 2^-64 (FIPS 186-5 A.2.1).
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, int, int]]] = {
    "p-256": (ec.SECP256R1(), 40, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    "p-384": (
        ec.SECP384R1(),
        56,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
}


@dataclass(frozen=True, slots=True)
class _Pending:
    share: bytes
    finish_with: Callable[[bytes], bytes] = field(repr=False)

    def finish(self, answer: bytes) -> bytes:
        return self.finish_with(answer)


class X25519:
    """RFC 7748; a peer's point of small order gives the zero secret and is refused."""

    name = "x25519"

    def __init__(self, randomness: RandomSource) -> None:
        self._randomness = randomness

    async def offer(self) -> _Pending:
        """Return a fresh public key."""
        private = X25519PrivateKey.from_private_bytes(self._randomness.draw(32))
        return _Pending(private.public_key().public_bytes_raw(), lambda share: self._agree(private, share))

    async def answer(self, share: bytes) -> tuple[bytes, bytes]:
        """Return the secret and our public key. Raises RemoteProtocolError."""
        private = X25519PrivateKey.from_private_bytes(self._randomness.draw(32))
        return self._agree(private, share), private.public_key().public_bytes_raw()

    def _agree(self, private: X25519PrivateKey, share: bytes) -> bytes:
        try:
            return private.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError as why:
            raise RemoteProtocolError(f"x25519: the peer's public key is refused: {why}") from None


class EllipticCurve:
    """ECDH on P-256 or P-384 (SP 800-56A r3): uncompressed points, checked to lie on the curve."""

    def __init__(self, name: str, randomness: RandomSource) -> None:
        self.name: Final = name
        self._curve, self._size, self._order = _CURVES[name]
        self._randomness = randomness

    async def offer(self) -> _Pending:
        """Return a fresh public key."""
        private = self._fresh()
        return _Pending(_point(private), lambda share: self._agree(private, share))

    async def answer(self, share: bytes) -> tuple[bytes, bytes]:
        """Return the secret and our public key. Raises RemoteProtocolError."""
        private = self._fresh()
        return self._agree(private, share), _point(private)

    def _fresh(self) -> ec.EllipticCurvePrivateKey:
        drawn = int.from_bytes(self._randomness.draw(self._size), "big")
        return ec.derive_private_key(drawn % (self._order - 1) + 1, self._curve)

    def _agree(self, private: ec.EllipticCurvePrivateKey, share: bytes) -> bytes:
        if share[:1] != b"\x04":  # one encoding of a point, so that a transcript has one meaning
            raise RemoteProtocolError(f"{self.name}: the peer's public key is not an uncompressed point")
        try:
            return private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(self._curve, share))
        except ValueError as why:
            raise RemoteProtocolError(f"{self.name}: the peer's public key is refused: {why}") from None


def _point(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


class MlKem:
    """ML-KEM-768 or ML-KEM-1024 (FIPS 203); a wrong ciphertext gives another secret, which the confirmation finds."""

    def __init__(self, name: str, randomness: RandomSource) -> None:
        self.name: Final = name
        self._private: type[MLKEM768PrivateKey | MLKEM1024PrivateKey]
        self._public: type[MLKEM768PublicKey | MLKEM1024PublicKey]
        if name == "ml-kem-768":
            self._private, self._public = MLKEM768PrivateKey, MLKEM768PublicKey
        else:
            self._private, self._public = MLKEM1024PrivateKey, MLKEM1024PublicKey
        self._randomness = randomness

    async def offer(self) -> _Pending:
        """Return a fresh encapsulation key."""
        private = self._private.from_seed_bytes(self._randomness.draw(_SEED_BYTES))

        def decapsulate(ciphertext: bytes) -> bytes:
            try:
                return private.decapsulate(ciphertext)
            except ValueError as why:
                raise RemoteProtocolError(f"{self.name}: the peer's ciphertext is refused: {why}") from None

        return _Pending(private.public_key().public_bytes_raw(), decapsulate)

    async def answer(self, share: bytes) -> tuple[bytes, bytes]:
        """Return the secret and its ciphertext. Raises RemoteProtocolError."""
        try:
            return self._public.from_public_bytes(share).encapsulate()
        except ValueError as why:
            raise RemoteProtocolError(f"{self.name}: the peer's encapsulation key is refused: {why}") from None


def exchange_methods(names: tuple[str, ...], randomness: RandomSource) -> dict[str, KeyEstablishment]:
    """Return the methods with these names (``establishment.policy.EXCHANGES``)."""

    def make(name: str) -> KeyEstablishment:
        if name == "x25519":
            return X25519(randomness)
        return EllipticCurve(name, randomness) if name in _CURVES else MlKem(name, randomness)

    return {name: make(name) for name in names}
