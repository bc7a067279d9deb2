"""What two agents say to each other about keys: key_IDs and proofs, never key material. Parsed only here."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from heliograph.consumer.keys import KEY_ID_BYTES, PROOF_BYTES
from heliograph.errors import RemoteProtocolError

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Commit",
    "Confirm",
    "Message",
    "Prepare",
    "Ready",
    "Refusal",
    "RekeyRequest",
    "Standing",
    "decode",
    "encode",
]

MAX_MESSAGE_BYTES: Final = 1024  # the longest message has about 200

KeyId = Annotated[bytes, msgspec.Meta(min_length=KEY_ID_BYTES, max_length=KEY_ID_BYTES)]
Proof = Annotated[bytes, msgspec.Meta(min_length=PROOF_BYTES, max_length=PROOF_BYTES)]
Number = Annotated[int, msgspec.Meta(ge=1, lt=2**62)]


class Prepare(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="prepare"):
    """Initiator: I fetched this key; fetch it by its key_ID and be ready to receive under it."""

    key_id: KeyId
    previous: KeyId | None
    number: Number
    proof: Proof


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ready"):
    """Responder: I hold the key and accept records under it."""

    key_id: KeyId
    number: Number
    proof: Proof


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="commit"):
    """Initiator: I accept records under the key and send under it; you do the same."""

    key_id: KeyId
    number: Number
    proof: Proof


class Confirm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="confirm"):
    """Responder: I send under the key; the one before may be retired."""

    key_id: KeyId
    number: Number
    proof: Proof


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refusal"):
    """Responder: I will not use this key. Without a proof; the most it can cause is another, fresh key."""

    key_id: KeyId
    number: Number
    reason: Literal["unknown key", "wrong proof"]


class RekeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rekey-request"):
    """Responder: this generation is nearly used up on my side; please rotate."""

    key_id: KeyId
    number: Number
    proof: Proof


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="standing"):
    """Responder, on every new control connection: the generation I send under; all None if I have none."""

    key_id: KeyId | None = None
    number: Number | None = None
    proof: Proof | None = None


Message = Prepare | Ready | Commit | Confirm | Refusal | RekeyRequest | Standing

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the message as MessagePack, at most MAX_MESSAGE_BYTES."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """Parse one message strictly. Raises RemoteProtocolError for everything else."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(f"a control message of {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as why:
        raise RemoteProtocolError(f"not a control message: {why}") from why
