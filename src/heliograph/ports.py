"""The small interfaces behind which hardware, simulator, storage, network and attacker all stand."""

from __future__ import annotations

from typing import Protocol

from heliograph.types import (
    BlockId,
    DeliveredKey,
    DetectionRecord,
    LightParameters,
    PulseRecord,
)

__all__ = [
    "Anchor",
    "Clock",
    "KeyEstablishment",
    "KeySource",
    "PeerTrust",
    "PendingShare",
    "RandomSource",
    "Receiver",
    "Signer",
    "Transmitter",
    "Transport",
    "Vault",
    "Verifier",
]


class Transmitter(Protocol):
    """A QKD module that sends light."""

    async def emit(self, block: BlockId, light: LightParameters) -> PulseRecord:
        """Send the block's pulses; return when the last has left. Raises TransportClosed if the module is gone."""

    async def close(self) -> None:
        """Release the module."""


class Receiver(Protocol):
    """A QKD module that detects light."""

    async def collect(self, block: BlockId, light: LightParameters) -> DetectionRecord:
        """Measure one block; return when its last slot is over. Raises TransportClosed if the module is gone."""

    async def close(self) -> None:
        """Release the module."""


class Transport(Protocol):
    """Carries whole frames, in order, to the peer. Promises nothing about who reads or writes on the way."""

    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises TransportClosed."""

    async def receive(self) -> bytes:
        """Return the next frame. Raises TransportClosed at the end, RemoteProtocolError for an oversize frame."""

    async def close(self) -> None:
        """End the connection."""


class Clock(Protocol):
    """Time for limits and reports; never decides safety."""

    def now(self) -> float:
        """Return seconds from a fixed but arbitrary origin, never going back."""


class RandomSource(Protocol):
    """Uniform bits. ``kind`` goes into every report: "computational" for an operating system's generator."""

    @property
    def kind(self) -> str:
        """What the bits rest on."""

    def draw(self, size: int) -> bytes:
        """Return ``size`` fresh bytes."""


class Vault(Protocol):
    """Wraps secrets for rest under a key-encryption key that never enters the store."""

    @property
    def kind(self) -> str:
        """What protects the key-encryption key itself: "file", "passphrase" or "pkcs11"."""

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` encrypted and bound to ``context``."""

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Return the secret. Raises StoreUnavailable if it was altered or sealed elsewhere."""


class Anchor(Protocol):
    """A mark outside the backed-up store that never goes back (security.md 4)."""

    def read(self) -> tuple[int, int]:
        """Return the highest (epoch, block) ever marked; (0, 0) before the first. Raises RollbackDetected."""

    def advance(self, epoch: int, block: int) -> None:
        """Mark (epoch, block) durably; a lower mark changes nothing. Raises StoreUnavailable."""


class KeySource(Protocol):
    """A consumer's view of its own site's KME for one pair of SAEs (ETSI GS QKD 014)."""

    async def get_key(self) -> DeliveredKey:
        """Fetch one fresh key as master. Raises InsufficientKeys or KeySupplyError."""

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        """Fetch the key that the peer named, as slave. Raises KeyNotFound, NotPermitted or KeySupplyError."""


class PendingShare(Protocol):
    """What an initiator keeps of one method until the peer answers."""

    @property
    def share(self) -> bytes:
        """What the peer needs: a public key, or a key_ID. Public."""

    def finish(self, answer: bytes) -> bytes:
        """Return the secret, at least 32 bytes. Raises RemoteProtocolError for an answer that cannot be."""


class KeyEstablishment(Protocol):
    """One way to a shared secret: Diffie-Hellman, ML-KEM or QKD. None says who the peer is; the caller's tags do."""

    @property
    def name(self) -> str:
        """As configured: "qkd", "ml-kem-768", "ml-kem-1024", "x25519", "p-256", "p-384"."""

    async def offer(self) -> PendingShare:
        """Begin, as initiator. Raises KeySupplyError if there is no secret to be had."""

    async def answer(self, share: bytes) -> tuple[bytes, bytes]:
        """Return the secret and what goes back, as responder. Raises RemoteProtocolError or KeySupplyError."""


class Signer(Protocol):
    """This site's private key for the bootstrap by signatures (PKI or OpenPGP); used for nothing else."""

    @property
    def algorithm(self) -> str:
        """The method's name for reports, such as "ed25519", "ecdsa-p256-sha256", "ml-dsa-65", "openpgp-ed25519"."""

    @property
    def credential(self) -> bytes:
        """What the peer needs to believe the key: a chain of certificates, or an OpenPGP certificate. Public."""

    def sign(self, message: bytes) -> bytes:
        """Return a signature over ``message``. Raises ConfigurationError if the key cannot be used now."""


class Verifier(Protocol):
    """A peer's public key that was believed once."""

    @property
    def algorithm(self) -> str:
        """As for ``Signer``."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf certificate, or the OpenPGP fingerprint, in lower-case hexadecimal."""

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return nothing for a good signature. Raises AuthenticationFailed for any other."""


class PeerTrust(Protocol):
    """Decides whether a credential speaks for the registered peer: the trust anchor of one link."""

    def accept(self, credential: bytes, now: float) -> Verifier:
        """Check chain or certifications, name, validity at ``now`` (seconds since 1970), usage and revocation.

        Raises AnchorRefused with its cause; ConfigurationError if the anchor itself cannot be read.
        """

    def recall(self, credential: bytes) -> Verifier:
        """Return the key of a credential that was accepted before, unchecked: for messages made under it then."""
