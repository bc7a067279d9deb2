"""The header of a tunnel record: what stands in clear before the ciphertext, all of it authenticated.

    version u8 | type u8 | sender u8 | connection u32 | counter u64 | key_ID 16 bytes | length u32     35 bytes
    AEAD(direction key, nonce = connection || counter, AAD = the 35 bytes)                             length bytes

The AEAD is AES-256-GCM, ChaCha20-Poly1305, or a one-time pad with its own form (``ciphers``); the sites agree on it.

``length`` includes the tag of 16 bytes and is at most 64 KiB. Nothing here is secret and nothing is believed before
the tag is checked.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from heliograph.consumer.keys import Role
from heliograph.errors import RemoteProtocolError

__all__ = [
    "HEADER_BYTES",
    "MAX_BODY_BYTES",
    "MAX_PAYLOAD_BYTES",
    "TAG_BYTES",
    "RecordHeader",
    "RecordType",
    "connection_index",
    "opener_of",
    "parse_header",
]

VERSION: Final = 1
_FIELDS: Final = struct.Struct(">BBBIQ16sI")
_NONCE: Final = struct.Struct(">IQ")
HEADER_BYTES: Final = _FIELDS.size
TAG_BYTES: Final = 16
MAX_BODY_BYTES: Final = 65536
MAX_PAYLOAD_BYTES: Final = MAX_BODY_BYTES - TAG_BYTES
_RESPONDER_OPENED: Final = 1 << 31
MAX_CONNECTIONS_OPENED: Final = 1 << 31


class RecordType(IntEnum):
    """What a record carries."""

    OPEN = 1  # first record of a connection, by its opener: the name of the forward
    ACCEPT = 2  # the answer: the inner connection stands
    DATA = 3  # bytes of the inner connection
    MARKER = 4  # first record under a new generation: the key_ID before and how many records went under it
    CLOSE = 5  # the sender's half of the inner connection ended in order
    PACKET = 6  # a packet of the inner network; the one kind that travels in datagrams, and nowhere else


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """One record's header. ``sender``: the site that made the record; ``length``: of the ciphertext with its tag."""

    kind: RecordType
    sender: Role
    connection: int
    counter: int
    key_id: bytes
    length: int

    def pack(self) -> bytes:
        """Return the 35 bytes that go on the wire and into the tag."""
        return _FIELDS.pack(VERSION, self.kind, self.sender, self.connection, self.counter, self.key_id, self.length)

    def nonce(self) -> bytes:
        """Return the 12 bytes of the GCM nonce; unique under a direction key since no counter is used twice."""
        return _NONCE.pack(self.connection, self.counter)


def parse_header(data: bytes) -> RecordHeader:
    """Parse 35 bytes. Raises RemoteProtocolError for a version, type, sender or length that cannot be."""
    version, kind, sender, connection, counter, key_id, length = _FIELDS.unpack(data)
    if version != VERSION:
        raise RemoteProtocolError(f"record version {version}, this side speaks {VERSION}")
    if not TAG_BYTES <= length <= MAX_BODY_BYTES:
        raise RemoteProtocolError(f"record of {length} bytes: between {TAG_BYTES} and {MAX_BODY_BYTES} are allowed")
    try:
        return RecordHeader(RecordType(kind), Role(sender), connection, counter, key_id, length)
    except ValueError as why:
        raise RemoteProtocolError(f"record header: {why}") from why


def connection_index(opener: Role, serial: int) -> int:
    """Return the u32 index of the ``serial``-th connection that ``opener`` opens; the two openers never meet."""
    assert 0 <= serial < MAX_CONNECTIONS_OPENED, "the opener stops before its indices run out"
    return serial | (_RESPONDER_OPENED if opener is Role.RESPONDER else 0)


def opener_of(connection: int) -> Role:
    """Return the site that opened the connection with this index."""
    return Role.RESPONDER if connection & _RESPONDER_OPENED else Role.INITIATOR
