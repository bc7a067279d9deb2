"""What two agents say to establish a key: one offer, one answer, each under a tag that is checked before it is read.

The tag is HMAC-SHA-384 over the exact bytes, under a key for each direction that both sites derive from the secret
they exchanged out of band (``PeerKeys``). It is computational: it decides who takes part, not what stays secret later.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from heliograph.errors import RemoteProtocolError

__all__ = [
    "MAX_SIGNED_BYTES",
    "PEER_KEY_BYTES",
    "TAG_BYTES",
    "Answer",
    "Call",
    "Here",
    "Offer",
    "PeerKeys",
    "Tagged",
    "read",
    "tagged",
]

PEER_KEY_BYTES: Final = 32
TAG_BYTES: Final = 48
MAX_SIGNED_BYTES: Final = 16384

Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="offer"):
    """Initiator: let us make the key ``key_id`` of these. ``shares``: one for each component, in order."""

    key_id: Id
    initiator: Name
    responder: Name
    policy: Name
    combiner: Name
    usage: Name
    components: Annotated[list[Name], msgspec.Meta(max_length=8)]
    shares: Annotated[list[bytes], msgspec.Meta(max_length=8)]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="answer"):
    """Responder: my shares. ``components``: those of the offer, or those without QKD where the policy allows it."""

    key_id: Id
    components: Annotated[list[Name], msgspec.Meta(max_length=8)]
    shares: Annotated[list[bytes], msgspec.Meta(max_length=8)]
    offer_digest: Annotated[bytes, msgspec.Meta(min_length=48, max_length=48)]


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="call"):
    """Initiator: are you there? ``nonce``: drawn for this call."""

    nonce: Id


class Here(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="here"):
    """Responder: I am, and I was asked just now."""

    nonce: Id


Said = Offer | Answer | Call | Here


@dataclass(frozen=True, slots=True)
class Tagged:
    """A message as it crosses the wire: ``signed`` is believed only after ``tag``."""

    signed: bytes
    tag: bytes


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """What a pair of agents derives from its shared secret of 32 bytes: one key for each use."""

    offers: bytes = field(repr=False)
    answers: bytes = field(repr=False)
    combining: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes) -> PeerKeys:
        """Derive by HKDF-SHA-384 (RFC 5869) with a label for each use."""

        def expand(use: bytes, size: int) -> bytes:
            return HKDF(SHA384(), size, None, b"heliograph/1 establishment " + use).derive(secret)

        return cls(expand(b"offers", TAG_BYTES), expand(b"answers", TAG_BYTES), expand(b"combining", PEER_KEY_BYTES))


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)


def tagged(message: Said, keys: PeerKeys) -> Tagged:
    """Return the message under its direction's tag."""
    signed = _encoder.encode(message)
    key = keys.offers if isinstance(message, Offer | Call) else keys.answers
    return Tagged(signed, hmac.digest(key, signed, "sha384"))


def read(message: Tagged, key: bytes) -> Said:
    """Check the tag, then parse strictly. Raises RemoteProtocolError."""
    if not hmac.compare_digest(hmac.digest(key, message.signed, "sha384"), message.tag):
        raise RemoteProtocolError("a message of the key establishment has a wrong tag: another peer_key, or a forger")
    try:
        return _decoder.decode(message.signed)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as why:
        raise RemoteProtocolError(f"not a message of the key establishment: {why}") from why
