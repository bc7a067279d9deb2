"""The messages with which each connection starts, byte for byte; nothing here is believed yet.

initiator -> Hello;  responder -> HelloReply;  initiator -> HelloConfirm;  responder -> HelloWelcome
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from heliograph.errors import RemoteProtocolError
from heliograph.protocol.records import Marks

__all__ = [
    "HELLO_BYTES_MAX",
    "SIGNED_HELLO_BYTES_MAX",
    "Hello",
    "HelloConfirm",
    "HelloReply",
    "HelloWelcome",
    "decode_hello",
    "encode_hello",
    "marks_tuple",
]

# Our choices: nothing longer is read before the peer is known. A chain of ML-DSA-87 certificates has about 30 KB.
HELLO_BYTES_MAX: Final = 1024
SIGNED_HELLO_BYTES_MAX: Final = 96 << 10
_CREDENTIAL_BYTES_MAX: Final = 64 << 10
_SIGNATURE_BYTES_MAX: Final = 8192

_Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Maybe32 = Annotated[bytes, Meta(max_length=32)]
_Instance = Annotated[bytes, Meta(min_length=16, max_length=16)]
_Maybe16 = Annotated[bytes, Meta(max_length=16)]
_Mark = Annotated[int, Meta(ge=0, lt=2**48)]
_Marks = tuple[_Mark, _Mark, _Mark, _Mark, _Mark]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Credential = Annotated[bytes, Meta(max_length=_CREDENTIAL_BYTES_MAX)]
_Signature = Annotated[bytes, Meta(max_length=_SIGNATURE_BYTES_MAX)]


class _Wire(Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    pass


class Hello(_Wire, frozen=True):
    """First message of whoever dials.

    ``generation``: which keys prove this connection, 0 for the bootstrap; ``context``: of the epoch's bootstrap;
    ``instance``: of the sender's store, ``before``: the one it knows the peer accepted, ``seen``: the one it last
    accepted from the peer; ``exchange``: X25519 public key, ``credential``: where the bootstrap has signatures.
    """

    version: int
    link: _Name
    site: _Name
    generation: _Mark
    nonce: _Key32
    marks: _Marks
    context: _Maybe32
    instance: _Instance
    before: _Maybe16
    seen: _Maybe16
    exchange: _Maybe32
    credential: _Credential


class HelloReply(_Wire, frozen=True):
    """Answer, with proof of the responder over this Hello and this answer."""

    version: int
    site: _Name
    nonce: _Key32
    marks: _Marks
    context: _Maybe32
    instance: _Instance
    before: _Maybe16
    seen: _Maybe16
    exchange: _Maybe32
    credential: _Credential
    mac: _Key32
    signature: _Signature


class HelloConfirm(_Wire, frozen=True):
    """Proof of the one who dialled."""

    mac: _Key32
    signature: _Signature


class HelloWelcome(_Wire, frozen=True):
    """The responder has taken the confirmation, durably; from here on the connection carries frames."""

    mac: _Key32


_Kind = TypeVar("_Kind", Hello, HelloReply, HelloConfirm, HelloWelcome)


def encode_hello(message: _Wire) -> bytes:
    """Return the one encoding of a message."""
    return msgspec.msgpack.encode(message)


def decode_hello(wire: bytes, kind: type[_Kind]) -> _Kind:
    """Decode strictly. Raises RemoteProtocolError, also for a message spelt in another way than our own."""
    try:
        message = msgspec.msgpack.decode(wire, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):  # ValueError: not UTF-8
        raise RemoteProtocolError(f"not a {kind.__name__}: is the other end a Heliograph site?") from None
    if msgspec.msgpack.encode(message) != wire:
        raise RemoteProtocolError(f"a {kind.__name__} in a form that is not its own")
    return message


def marks_tuple(marks: Marks) -> tuple[int, int, int, int, int]:
    """Return marks as they are on the wire."""
    return (marks.epoch, marks.touched, marks.proved, marks.committed, marks.pads)
