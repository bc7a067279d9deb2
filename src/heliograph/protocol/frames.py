"""One frame: a fixed header, one encoded message, and its tag where it has one.

    version u8 | flags u8 | direction u8 | epoch u32 | block u64 | sequence u32 | last seen u32 | length u32
    | body | tag

``sequence`` counts the frames of one block and direction from 0; ``last seen`` is how many frames of the other
direction had arrived, so that a transcript fixes the interleaving too. All integers are big endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from heliograph.errors import RemoteProtocolError

__all__ = ["WIRE_VERSION", "Direction", "Frame", "parse_frame"]

WIRE_VERSION = 1
_HEADER = struct.Struct(">BBBIQIII")
_TAGGED = 1
_TAG_BYTES_MAX = 8192  # our choice: a one-time tag has 16 to 48 bytes, a signature by ML-DSA-87 4,627
BLOCKS_MAX = 2**48  # our choice: more than a block a nanosecond for three days, and well inside the store's integers


class Direction(IntEnum):
    """Which site sent the frame; not who opened the connection."""

    TO_RECEIVER = 0
    TO_TRANSMITTER = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's fields. ``covered`` is what a tag is taken over: header and body, without the tag itself."""

    direction: Direction
    epoch: int
    block: int
    sequence: int
    last_seen: int
    body: bytes
    tagged: bool = False
    tag: bytes = b""

    def covered(self) -> bytes:
        """Return header and body exactly as they are on the wire."""
        head = _HEADER.pack(
            WIRE_VERSION,
            _TAGGED if self.tagged else 0,
            self.direction,
            self.epoch,
            self.block,
            self.sequence,
            self.last_seen,
            len(self.body),
        )
        return head + self.body

    def wire(self) -> bytes:
        """Return the whole frame."""
        return self.covered() + self.tag


def parse_frame(wire: bytes) -> Frame:
    """Parse strictly. Raises RemoteProtocolError for another version, a wrong length or an unknown flag."""
    if len(wire) < _HEADER.size:
        raise RemoteProtocolError(f"a frame of {len(wire)} bytes is shorter than its header")
    version, flags, direction, epoch, block, sequence, last_seen, length = _HEADER.unpack_from(wire)
    if version != WIRE_VERSION:
        raise RemoteProtocolError(f"wire version {version}; this site speaks {WIRE_VERSION}")
    if flags not in (0, _TAGGED) or direction not in (0, 1):
        raise RemoteProtocolError(f"flags {flags}, direction {direction}: unknown")
    if block >= BLOCKS_MAX:
        raise RemoteProtocolError(f"block {block}: no link has that many")
    tag_size = len(wire) - _HEADER.size - length
    # How long a tag must be, its method knows; a tag of any other length is refused when it is checked.
    if not (1 <= tag_size <= _TAG_BYTES_MAX if flags else tag_size == 0):
        raise RemoteProtocolError(f"a frame of {len(wire)} bytes names a body of {length}")
    body = wire[_HEADER.size : _HEADER.size + length]
    tag = wire[_HEADER.size + length :]
    return Frame(Direction(direction), epoch, block, sequence, last_seen, body, bool(flags), tag)
