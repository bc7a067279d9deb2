"""What two sides with recorded keys say to each other, and its one encoding. All of it is public; none of it is key.

The records that ordinary blocks have too are those of ``messages``. A is the reference side, whose bits stay as they
are; B corrects its bits towards A's.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from heliograph.errors import RemoteProtocolError
from heliograph.protocol import messages as m
from heliograph.protocol.registration import Reconciliation

__all__ = ["Concluded", "DistillationMessage", "Opening", "PassesSeed", "decode", "encode"]

_Count = Annotated[int, Meta(ge=0, lt=2**48)]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class _Message(Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    """Common form: an array whose first item names the message."""


class Opening(_Message, frozen=True):
    """B -> A, A -> B: what each side was told. Only compared: no side takes a parameter from the other."""

    bits: _Count
    eps_sec: float
    eps_cor: float
    strict: bool
    sample_bits: _Count
    sample_errors: _Count
    reconciliation: Reconciliation = "cascade"
    family: Annotated[str, Meta(max_length=32)] = "modified-multiply-shift"
    biased: bool = False


class PassesSeed(_Message, frozen=True):
    """B -> A: the public seed of reconciliation's passes, and B's parities of the sample; answered with A's."""

    seed: _Bytes32
    count: _Count
    parities: bytes


class Concluded(_Message, frozen=True):
    """B -> A, A -> B: SHA-256 of every frame before. It shows damage, not forgery: the channel is unauthenticated."""

    transcript: _Bytes32


DistillationMessage = (
    Opening
    | PassesSeed
    | m.ParityRequest
    | m.ParityReply
    | m.SyndromeRequest
    | m.Syndrome
    | m.MoreSyndrome
    | m.ReconciliationEnd
    | m.VerificationChallenge
    | m.Verified
    | m.AmplificationSeed
    | Concluded
    | m.BlockAbandoned
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[DistillationMessage] = msgspec.msgpack.Decoder(DistillationMessage)


def encode(message: DistillationMessage) -> bytes:
    """Return the one encoding of ``message``."""
    return _encoder.encode(message)


def decode(body: bytes) -> DistillationMessage:
    """Parse strictly; anything but the one encoding of a known message raises RemoteProtocolError."""
    try:
        message = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        # Only the kind: a UnicodeDecodeError quotes what it could not read.
        raise RemoteProtocolError(f"undecodable message of {len(body)} bytes ({type(error).__name__})") from None
    if _encoder.encode(message) != body:
        raise RemoteProtocolError(f"a {type(message).__name__} in a form that is not its own")
    return message
