"""Messages between two key managers, each authenticated by keys that both hold and that are used for it alone. No I/O.

A request and its reply cost two keys of the pair of SAEs they are about: the sender takes them as master, so they are
gone at its site before the first byte leaves, and the receiver takes them by name, so they are gone there before the
request is acted on. Each is one one-time Poly1305 key for one byte string (``authentication.mac``). A replayed request
names keys that are gone. One that was made up may name keys that are there, since key_IDs are no secret: its tag fails,
and the keys stay for whoever may fetch them. Attempts on a key are counted durably before the tag is compared; at the
limit no message is taken under it any more (security.md 2), and it still serves as a key.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from heliograph.authentication.mac import PAD_BYTES, Pad, check_tag, make_tag
from heliograph.errors import AuthenticationFailed, ConfigurationError, RemoteProtocolError
from heliograph.kme.supply import Supply
from heliograph.types import StoredKey

__all__ = [
    "ATTEMPTS_MAX",
    "KEYS_FOR_EACH_MESSAGE",
    "MESSAGE_BYTES_MAX",
    "AttemptStore",
    "OneTimeKeys",
    "SealedRequest",
    "read_request",
    "take_request",
]

KEYS_FOR_EACH_MESSAGE = 2
ATTEMPTS_MAX = 8  # our choice: forged with probability 8 times that of one tag
MESSAGE_BYTES_MAX = 64 * 1024  # our choice
_VERSION = 1


class _Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    sender: str
    receiver: str
    request_key: bytes
    reply_key: bytes
    body: bytes
    tag: bytes


class _Reply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    body: bytes
    tag: bytes


_Frame = TypeVar("_Frame", _Request, _Reply)


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """A request as it was read; nothing in it is believed before ``take_request``."""

    sender: str
    receiver: str
    key_ids: tuple[str, str]
    body: bytes
    tag: bytes


@dataclass(frozen=True, slots=True)
class OneTimeKeys:
    """The two keys of one exchange: the first for the request, the second for its reply."""

    request: StoredKey = field(repr=False)
    reply: StoredKey = field(repr=False)

    def __post_init__(self) -> None:
        if min(len(self.request.material), len(self.reply.material)) < PAD_BYTES:
            raise ConfigurationError(f"messages between key managers need keys of at least {8 * PAD_BYTES} bits")

    def seal(self, body: bytes) -> bytes:
        """Return the request's bytes. ``sender`` is the SAE for which the keys were taken as master."""
        key = self.request
        first, second = (uuid.UUID(k.key_id).bytes for k in (self.request, self.reply))
        covered = _covered(b"request", key.master_sae, key.slave_sae, first, second, body)
        tag = make_tag(_pad(key), covered)
        return msgspec.msgpack.encode(_Request(_VERSION, key.master_sae, key.slave_sae, first, second, body, tag))

    def open(self, request: SealedRequest) -> bytes:
        """Return the request's body. Raises AuthenticationFailed."""
        first, second = (uuid.UUID(k).bytes for k in request.key_ids)
        covered = _covered(b"request", request.sender, request.receiver, first, second, request.body)
        check_tag(_pad(self.request), covered, request.tag)
        return request.body

    def seal_reply(self, body: bytes) -> bytes:
        """Return the reply's bytes."""
        tag = make_tag(_pad(self.reply), self._covered_reply(body))
        return msgspec.msgpack.encode(_Reply(_VERSION, body, tag))

    def open_reply(self, data: bytes) -> bytes:
        """Return the reply's body. Raises RemoteProtocolError or AuthenticationFailed."""
        reply = _decode(data, _Reply)
        check_tag(_pad(self.reply), self._covered_reply(reply.body), reply.tag)
        return reply.body

    def _covered_reply(self, body: bytes) -> list[bytes]:
        key = self.reply
        return _covered(b"reply", key.master_sae, key.slave_sae, uuid.UUID(key.key_id).bytes, b"", body)


class AttemptStore(Protocol):
    """Counts, durably, how often messages were tried under keys that are here. Raises StoreUnavailable."""

    def attempt(self, key_ids: Sequence[str], now: float) -> int:
        """Note one more attempt on each key before it is made; return the most that any of them has had now."""


def take_request(
    request: SealedRequest, supply: Supply, attempts: AttemptStore, now: float
) -> tuple[OneTimeKeys, bytes]:
    """Take the request's keys and return them with its body; they are gone then, and only then.

    Raises AuthenticationFailed for a tag that is wrong or was tried too often, KeySupplyError for keys that are not
    here; then every key is where it was.
    """
    supply.check_held(request.receiver, request.sender, request.key_ids)  # what is made up leaves no trace
    if attempts.attempt(request.key_ids, now) > ATTEMPTS_MAX:
        raise AuthenticationFailed("too many messages were tried under one of these keys")

    def accept(found: list[StoredKey]) -> None:
        # A group's key is known to every SAE of the group: one of them could write about the others' pair.
        if any(key.slave_sae != request.receiver for key in found):
            raise AuthenticationFailed("a message under a key that more than two SAEs share")
        if min(len(key.material) for key in found) < PAD_BYTES:
            raise AuthenticationFailed("a message under a key that is too short for one")
        OneTimeKeys(*found).open(request)

    keys = supply.dec_keys(request.receiver, request.sender, request.key_ids, accept)
    return OneTimeKeys(*keys), request.body


def read_request(data: bytes) -> SealedRequest:
    """Read a request's frame. Raises RemoteProtocolError."""
    request = _decode(data, _Request)
    if len(request.request_key) != 16 or len(request.reply_key) != 16 or request.request_key == request.reply_key:
        raise RemoteProtocolError("a message that does not name two keys")
    key_ids = str(uuid.UUID(bytes=request.request_key)), str(uuid.UUID(bytes=request.reply_key))
    return SealedRequest(request.sender, request.receiver, key_ids, request.body, request.tag)


def _decode(data: bytes, record: type[_Frame]) -> _Frame:
    try:
        message = msgspec.msgpack.decode(data, type=record, strict=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise RemoteProtocolError("a message between key managers that cannot be read") from None
    # One spelling for each message, as on the link.
    if msgspec.msgpack.encode(message) != data or message.version != _VERSION:
        raise RemoteProtocolError("a message between key managers in another spelling or version")
    return message


def _pad(key: StoredKey) -> Pad:
    return Pad(key.material[:PAD_BYTES])


def _covered(what: bytes, sender: str, receiver: str, first: bytes, second: bytes, body: bytes) -> list[bytes]:
    parts = (b"heliograph/1 one-time " + what, sender.encode(), receiver.encode(), first, second, body)
    return [framed for part in parts for framed in (struct.pack(">I", len(part)), part)]
