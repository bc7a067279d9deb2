"""The keys of one generation: everything a tunnel uses, derived from one delivered key."""

from __future__ import annotations

import hmac
import struct
import uuid
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from heliograph.bits import BitString
from heliograph.errors import KeySupplyError, RemoteProtocolError
from heliograph.types import DeliveredKey

__all__ = [
    "KEY_BYTES",
    "KEY_ID_BYTES",
    "PAD_BYTES_MIN",
    "PROOF_BYTES",
    "Cipher",
    "Proven",
    "Role",
    "TunnelKeys",
    "check_proof",
    "derive",
    "key_id_text",
    "proof",
]

# From the key manager: what a delivered key looks like (ETSI GS QKD 014: 256 bits by default, key_ID a UUID).
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 16
PAD_BYTES_MIN: Final = 1008  # our choice: room for a few records and the longest forward name

# Our choice: labels. Every use of a key has its own, so no two uses collide.
_TUNNEL: Final = b"heliograph/1 tunnel"
_ROTATION: Final = b"heliograph/1 rotation"
_SITE_ROLES: Final = b"initiator>responder"
_PROOF_FIELDS: Final = struct.Struct(">B16sB16sQ")
PROOF_BYTES: Final = 32


class Role(IntEnum):
    """Which site of a tunnel this is: the initiator fetches fresh keys, the responder fetches them by key_ID."""

    INITIATOR = 1
    RESPONDER = 2

    @property
    def peer(self) -> Role:
        """The other site's role."""
        return Role.RESPONDER if self is Role.INITIATOR else Role.INITIATOR


class Cipher(StrEnum):
    """How records are protected; both sites set it, and it is part of every derived key."""

    AES_256_GCM = "aes-256-gcm"
    CHACHA20_POLY1305 = "chacha20-poly1305"
    ONE_TIME_PAD = "one-time-pad"
    WIREGUARD = "wireguard"  # WireGuard's own cipher; the initiator's key is its preshared key
    STRONGSWAN = "strongswan"  # IPsec's ciphers; the initiator's key is a post-quantum preshared key (RFC 8784)
    TLS_PSK = "tls-psk"  # TLS 1.3's own cipher; the opener's key gives the preshared key of each connection


class Proven(IntEnum):
    """What a proof is about; a proof of one kind is never valid as another, so none can be reflected."""

    PREPARE = 1
    READY = 2
    COMMIT = 3
    CONFIRM = 4
    REKEY_REQUEST = 5
    STANDING = 6


@dataclass(frozen=True, slots=True)
class TunnelKeys:
    """The keys of one generation, 256 bits each; with a one-time pad the first two are pads. ``key_id``: public.

    ``initiator_key`` encrypts everything that the initiator's site sends, ``responder_key`` the other direction,
    ``confirmation_key`` proves to the peer that this generation is held.
    """

    key_id: bytes
    initiator_key: BitString = field(repr=False)
    responder_key: BitString = field(repr=False)
    confirmation_key: BitString = field(repr=False)
    cipher: Cipher = Cipher.AES_256_GCM

    def sending_key(self, role: Role) -> BitString:
        """Return the key that the site with ``role`` encrypts under."""
        return self.initiator_key if role is Role.INITIATOR else self.responder_key


def derive(key: DeliveredKey, cipher: Cipher = Cipher.AES_256_GCM) -> TunnelKeys:
    """Derive a generation's keys by HKDF-SHA-256 (RFC 5869), without salt.

    info = label || key_ID || site roles || 0 || purpose; all but the last part have a fixed length.
    A one-time pad is only cut: 32 bytes of confirmation key, then one half for each direction.
    Raises KeySupplyError if the key has not 256 bits, the pad is too short, or the key_ID is not a UUID.
    """
    if cipher is Cipher.ONE_TIME_PAD:
        return _cut(key)
    if len(key.material) != KEY_BYTES:
        raise KeySupplyError(
            f"key {key.key_id} has {8 * len(key.material)} bits, the encryptor needs {8 * KEY_BYTES}: "
            "set the key size of this pair of SAEs at the key manager"
        )
    key_id = _key_id_bytes(key.key_id)

    def expand(purpose: bytes) -> BitString:
        info = _TUNNEL + key_id + _SITE_ROLES + b"\0" + purpose
        if cipher is not Cipher.AES_256_GCM:
            info += b" " + cipher.encode()
        return BitString(HKDF(SHA256(), KEY_BYTES, None, info).derive(key.material), 8 * KEY_BYTES)

    return TunnelKeys(
        key_id, expand(b"initiator records"), expand(b"responder records"), expand(b"confirmation"), cipher
    )


def _cut(key: DeliveredKey) -> TunnelKeys:
    half, odd = divmod(len(key.material) - KEY_BYTES, 2)
    if odd or half < PAD_BYTES_MIN:
        raise KeySupplyError(
            f"pad {key.key_id} has {len(key.material)} bytes: {KEY_BYTES} and at least {2 * PAD_BYTES_MIN} are needed"
        )
    confirmation, pads = key.material[:KEY_BYTES], key.material[KEY_BYTES:]
    first, second, third = (BitString(each, 8 * len(each)) for each in (pads[:half], pads[half:], confirmation))
    return TunnelKeys(_key_id_bytes(key.key_id), first, second, third, Cipher.ONE_TIME_PAD)


def _key_id_bytes(key_id: str) -> bytes:
    try:
        parsed = uuid.UUID(key_id)
    except ValueError as why:
        raise KeySupplyError(f"key_ID {key_id!r} is not a UUID (ETSI GS QKD 014): check the key manager") from why
    return parsed.bytes


def key_id_text(key_id: bytes) -> str:
    """Return the canonical text of a key_ID, as the key manager knows it."""
    return str(uuid.UUID(bytes=key_id))


def proof(keys: TunnelKeys, kind: Proven, previous: bytes | None, number: int) -> bytes:
    """Return HMAC-SHA-256 (32 bytes) over what is said, key_ID, previous key_ID (or none) and rotation number.

    The input has a fixed length for every kind, so it is framed injectively.
    """
    fields = _PROOF_FIELDS.pack(kind, keys.key_id, previous is not None, previous or bytes(KEY_ID_BYTES), number)
    return hmac.digest(keys.confirmation_key.to_bytes(), _ROTATION + fields, "sha256")


def check_proof(keys: TunnelKeys, kind: Proven, previous: bytes | None, number: int, offered: bytes) -> None:
    """Return if ``offered`` is the proof. Raises RemoteProtocolError otherwise; comparison in constant time."""
    if not hmac.compare_digest(proof(keys, kind, previous, number), offered):
        raise RemoteProtocolError(
            f"{kind.name.lower()} of rotation {number} names key {key_id_text(keys.key_id)} but does not prove it: "
            "the peer holds another key under this key_ID, has another cipher, or someone in between made the message"
        )
