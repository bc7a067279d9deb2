"""Exchanges that a test can repeat: Diffie-Hellman of seeded keys as it is, ML-KEM by a stand-in.

The library draws inside ML-KEM's encapsulation, so no seed reaches it. The stand-in has its sizes and its interface and
no secrecy at all: whoever sees the public key and the ciphertext has the secret.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from heliograph.errors import RemoteProtocolError
from heliograph.ports import KeyEstablishment
from heliograph.testing.randomness import SeededRandom
from heliograph.vault.exchanges import exchange_methods

__all__ = ["SeededKem", "seeded_exchanges"]

_SIZES = {"ml-kem-768": (1184, 1088), "ml-kem-1024": (1568, 1568)}


@dataclass(frozen=True, slots=True)
class _Pending:
    name: str
    share: bytes

    def finish(self, answer: bytes) -> bytes:
        return _secret(self.name, self.share, answer)


class SeededKem:
    """A stand-in for ML-KEM with its sizes; the same seed gives the same bytes."""

    def __init__(self, name: str, randomness: SeededRandom) -> None:
        self.name = name
        self._randomness = randomness

    async def offer(self) -> _Pending:
        """Return what stands for an encapsulation key."""
        return _Pending(self.name, self._randomness.draw(_SIZES[self.name][0]))

    async def answer(self, share: bytes) -> tuple[bytes, bytes]:
        """Return a secret and what stands for its ciphertext."""
        ciphertext = self._randomness.draw(_SIZES[self.name][1])
        return _secret(self.name, share, ciphertext), ciphertext


def _secret(name: str, public: bytes, ciphertext: bytes) -> bytes:
    if (len(public), len(ciphertext)) != _SIZES[name]:
        raise RemoteProtocolError(f"{name}: a key of {len(public)} or a ciphertext of {len(ciphertext)} bytes")
    return hashlib.shake_256(name.encode() + public + ciphertext).digest(32)


def seeded_exchanges(names: tuple[str, ...], randomness: SeededRandom) -> dict[str, KeyEstablishment]:
    """Return the methods with these names, all of their bytes from ``randomness``."""
    methods = exchange_methods(names, randomness)
    return methods | {name: SeededKem(name, randomness) for name in names if name in _SIZES}
