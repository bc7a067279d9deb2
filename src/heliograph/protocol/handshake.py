"""Each connection starts here: who is there, is the registration the same, where does each side stand.

    initiator -> Hello;  responder -> HelloReply (MAC);  initiator -> HelloConfirm (MAC)

No one-time pad is touched: marks and two fresh nonces are authenticated by HMAC-SHA-256 under the book's
resynchronisation key (security.md 4). An invalid message is refused and changes nothing at all.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from heliograph.errors import RemoteProtocolError
from heliograph.protocol.conversation import LinkIdentity
from heliograph.protocol.frames import WIRE_VERSION
from heliograph.protocol.records import Marks

__all__ = ["HELLO_BYTES_MAX", "Established", "Initiator", "Responder"]

HELLO_BYTES_MAX = 1024  # our choice: nothing longer is read before the peer is known

_Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Mac = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Mark = Annotated[int, Meta(ge=0, lt=2**48)]
_Marks = tuple[_Mark, _Mark, _Mark, _Mark, _Mark]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]


class _Wire(Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    pass


class Hello(_Wire, frozen=True):
    """First message of whoever dials."""

    version: int
    link: _Name
    site: _Name
    nonce: _Nonce
    marks: _Marks


class HelloReply(_Wire, frozen=True):
    """Answer, with proof that it knows the key and this Hello."""

    version: int
    site: _Name
    nonce: _Nonce
    marks: _Marks
    mac: _Mac


class HelloConfirm(_Wire, frozen=True):
    """Proof of the one who dialled."""

    mac: _Mac


@dataclass(frozen=True, slots=True)
class Established:
    """The peer is who the registration names, now. ``transcript`` keys the pre-filter of this connection."""

    peer: Marks
    transcript: bytes = field(repr=False)


def _decode(wire: bytes, kind: type[Hello | HelloReply | HelloConfirm]) -> Hello | HelloReply | HelloConfirm:
    try:
        message = msgspec.msgpack.decode(wire, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):  # ValueError: not UTF-8
        raise RemoteProtocolError(f"not a {kind.__name__}: is the other end a Heliograph site?") from None
    if msgspec.msgpack.encode(message) != wire:
        raise RemoteProtocolError(f"a {kind.__name__} in a form that is not its own")
    return message


def _marks(marks: Marks) -> tuple[int, int, int, int, int]:
    return (marks.epoch, marks.touched, marks.proved, marks.committed, marks.pads)


class _Side:
    """What both ends hold: the key, the identity, this site's name and marks, one fresh nonce."""

    def __init__(self, identity: LinkIdentity, site: str, resync_key: bytes, marks: Marks, nonce: bytes) -> None:
        self._identity = identity
        self._site = site
        self._peer = identity.receiver_site if site == identity.transmitter_site else identity.transmitter_site
        self._key = resync_key
        self._own_marks = marks
        self._nonce = nonce

    def _mac(self, label: bytes, *parts: bytes) -> bytes:
        mac = hmac.new(self._key, b"heliograph/1 resync " + label, hashlib.sha256)
        for part in (self._identity.prefix(), *parts):
            mac.update(len(part).to_bytes(4, "big") + part)
        return mac.digest()

    def _check(self, mac: bytes, label: bytes, *parts: bytes) -> None:
        if not hmac.compare_digest(mac, self._mac(label, *parts)):
            raise RemoteProtocolError(
                f"{self._peer} does not prove itself: its key book or its registration of link "
                f"{self._identity.link!r} is not the same as here"
            )

    def _check_name(self, version: int, site: str) -> None:
        if version != WIRE_VERSION:
            raise RemoteProtocolError(f"the peer speaks wire version {version}, this site {WIRE_VERSION}")
        if site != self._peer:
            raise RemoteProtocolError(f"the peer calls itself {site!r}; registered is {self._peer!r}")


class Initiator(_Side):
    """The end that dials."""

    def hello(self) -> bytes:
        """Return the first message."""
        self._hello = msgspec.msgpack.encode(
            Hello(WIRE_VERSION, self._identity.link, self._site, self._nonce, _marks(self._own_marks))
        )
        return self._hello

    def confirm(self, wire: bytes) -> tuple[bytes, Established]:
        """Check the reply; return the last message and the result. Raises RemoteProtocolError."""
        reply = _decode(wire, HelloReply)
        assert isinstance(reply, HelloReply)
        self._check_name(reply.version, reply.site)
        bare = msgspec.msgpack.encode(HelloReply(reply.version, reply.site, reply.nonce, reply.marks, bytes(32)))
        self._check(reply.mac, b"reply", self._hello, bare)
        last = msgspec.msgpack.encode(HelloConfirm(self._mac(b"confirm", self._hello, wire)))
        return last, Established(Marks(*reply.marks), self._hello + wire)


class Responder(_Side):
    """The end that listens."""

    def reply(self, wire: bytes) -> bytes:
        """Check the form of a Hello; return the answer. Raises RemoteProtocolError."""
        hello = _decode(wire, Hello)
        assert isinstance(hello, Hello)
        self._check_name(hello.version, hello.site)
        if hello.link != self._identity.link:
            raise RemoteProtocolError(f"the peer asks for link {hello.link!r}; here is {self._identity.link!r}")
        self._hello, self._peer_marks = wire, Marks(*hello.marks)
        bare = HelloReply(WIRE_VERSION, self._site, self._nonce, _marks(self._own_marks), bytes(32))
        mac = self._mac(b"reply", wire, msgspec.msgpack.encode(bare))
        self._reply = msgspec.msgpack.encode(
            HelloReply(WIRE_VERSION, self._site, self._nonce, _marks(self._own_marks), mac)
        )
        return self._reply

    def finish(self, wire: bytes) -> Established:
        """Check the last message. Only now is the peer known. Raises RemoteProtocolError."""
        confirm = _decode(wire, HelloConfirm)
        assert isinstance(confirm, HelloConfirm)
        self._check(confirm.mac, b"confirm", self._hello, self._reply)
        return Established(self._peer_marks, self._hello + self._reply)
