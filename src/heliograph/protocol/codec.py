"""Message <-> bytes. With ``module_link`` and ``handshake``, the only place where a peer's bytes become records."""

from __future__ import annotations

import msgspec

from heliograph.errors import RemoteProtocolError
from heliograph.protocol.messages import Message

__all__ = ["decode", "encode"]

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the one encoding of ``message``."""
    return _encoder.encode(message)


def decode(body: bytes) -> Message:
    """Parse strictly; anything but the one encoding of a known message raises RemoteProtocolError.

    Re-encoding rules out every second spelling of the same message (long integers, trailing bytes, extra fields).
    """
    try:
        message = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:  # ValueError: not UTF-8
        raise RemoteProtocolError(f"undecodable message of {len(body)} bytes: {error}") from None
    if _encoder.encode(message) != body:
        raise RemoteProtocolError(f"a {type(message).__name__} in a form that is not its own")
    return message
