"""What two key managers say to each other about key streams (ETSI GS QKD 004); each inside ``kme.one_time``. No I/O.

    Opening(ksid, source, destination, qos, connected)  -> Opened(status, qos, connected)
    Reserve(ksid, chunks)                               -> Done(ok)     chunk: index, key_IDs
    Want(ksid, index)                                   -> Done(ok)     after a Reserve, if there is key
    Closing(ksid)                                       -> Done(ok)

All may be repeated: the same message twice has the effect of one.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from heliograph.errors import RemoteProtocolError
from heliograph.kme.etsi004 import Qos, Status

__all__ = [
    "CHUNKS_MAX",
    "Closing",
    "Done",
    "Message",
    "Opened",
    "Opening",
    "Reserve",
    "StreamReply",
    "Want",
    "encode",
    "read_message",
    "read_stream_reply",
]

CHUNKS_MAX = 64  # our choice: chunks in one Reserve

Chunk = tuple[int, tuple[str, ...]]


class Opening(msgspec.Struct, frozen=True, array_like=True, tag="Opening", forbid_unknown_fields=True):
    """An application opened the stream, or (``connected`` false) gave up waiting for its peer."""

    ksid: bytes
    source: str
    destination: str
    qos: Qos
    connected: bool


class Reserve(msgspec.Struct, frozen=True, array_like=True, tag="Reserve", forbid_unknown_fields=True):
    """Which keys make up which chunks, from the site that owns them."""

    ksid: bytes
    chunks: tuple[Chunk, ...]


class Want(msgspec.Struct, frozen=True, array_like=True, tag="Want", forbid_unknown_fields=True):
    """An application here asks for a chunk that was not reserved yet."""

    ksid: bytes
    index: int


class Closing(msgspec.Struct, frozen=True, array_like=True, tag="Closing", forbid_unknown_fields=True):
    """The application here closed the stream."""

    ksid: bytes


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="Opened", forbid_unknown_fields=True):
    """Status 0, 5 or 7; the registered QoS or the counter-proposal; whether an application is connected there."""

    status: Status
    qos: Qos
    connected: bool


class Done(msgspec.Struct, frozen=True, array_like=True, tag="Done", forbid_unknown_fields=True):
    """Whether the message was taken."""

    ok: bool


Message = Opening | Reserve | Want | Closing
StreamReply = Opened | Done
_Union = TypeVar("_Union")


def encode(message: Message | StreamReply) -> bytes:
    """Return the message's bytes."""
    return msgspec.msgpack.encode(message)


def read_message(data: bytes) -> Message:
    """Read a request's body. Raises RemoteProtocolError."""
    message: Message = _decode(data, Message)  # type: ignore[arg-type]
    if len(message.ksid) != 16 or message.ksid == bytes(16):
        raise RemoteProtocolError("a stream message without a Key_stream_ID")
    if isinstance(message, Want) and not 0 <= message.index < 2**32:
        raise RemoteProtocolError("an index that is no u32")
    if isinstance(message, Reserve) and not 1 <= len(message.chunks) <= CHUNKS_MAX:
        raise RemoteProtocolError(f"a reservation has between 1 and {CHUNKS_MAX} chunks")
    return message


def read_stream_reply(data: bytes) -> StreamReply:
    """Read a reply's body. Raises RemoteProtocolError."""
    return _decode(data, StreamReply)  # type: ignore[arg-type]


def _decode(data: bytes, union: type[_Union]) -> _Union:
    try:
        return msgspec.msgpack.decode(data, type=union, strict=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise RemoteProtocolError("a stream message that cannot be read") from None
