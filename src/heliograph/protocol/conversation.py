"""One block's exchange as it crossed the wire, and the byte strings its tags cover (security.md 2).

A transcript is the exact wire bytes of both directions, injectively framed, in one canonical order: all frames from
transmitter to receiver by sequence, then the reverse. It is never re-encoded and never hashed beforehand.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import RemoteProtocolError
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.frames import Direction, Frame
from heliograph.protocol.messages import Message
from heliograph.types import BlockId

__all__ = ["Conversation", "LinkIdentity"]


@dataclass(frozen=True, slots=True)
class LinkIdentity:
    """What every tag binds besides the message: profile, link, both identities, both registrations' digest."""

    link: str
    transmitter_site: str
    receiver_site: str
    registration_digest: bytes

    def prefix(self) -> bytes:
        """Return an injective encoding of the identity."""
        parts = (
            b"heliograph/1 block",
            self.link.encode(),
            self.transmitter_site.encode(),
            self.receiver_site.encode(),
            self.registration_digest,
        )
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _framed(frames: tuple[bytes, ...]) -> bytes:
    return len(frames).to_bytes(4, "big") + b"".join(len(f).to_bytes(4, "big") + f for f in frames)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Both directions of one block so far. ``own`` is the direction in which this side sends."""

    identity: LinkIdentity
    epoch: int
    block: BlockId
    own: Direction
    sent: tuple[bytes, ...] = ()
    received: tuple[bytes, ...] = ()

    def draft(self, message: Message, *, tagged: bool = False) -> Frame:
        """Return the frame that would carry ``message`` next, without its tag."""
        return Frame(self.own, self.epoch, self.block, len(self.sent), len(self.received), encode(message), tagged)

    def with_sent(self, frame: Frame) -> Conversation:
        """Return the conversation after ``frame`` was handed to the transport."""
        return self._with((*self.sent, frame.wire()), self.received)

    def with_received(self, frame: Frame) -> Conversation:
        """Return the conversation after the peer's next frame. Raises RemoteProtocolError out of turn."""
        if frame.direction == self.own:
            raise RemoteProtocolError("a frame of our own direction came back: reflected")
        if (frame.epoch, frame.block) != (self.epoch, self.block):
            raise RemoteProtocolError(f"a frame of epoch {frame.epoch}, block {frame.block} in block {self.block}")
        if frame.sequence != len(self.received):
            raise RemoteProtocolError(f"frame {frame.sequence} where {len(self.received)} was due")
        if frame.last_seen > len(self.sent):
            raise RemoteProtocolError(f"the peer claims {frame.last_seen} frames of the {len(self.sent)} we sent")
        return self._with(self.sent, (*self.received, frame.wire()))

    def _with(self, sent: tuple[bytes, ...], received: tuple[bytes, ...]) -> Conversation:
        # Not by dataclasses.replace: reconciliation comes here twice a message, and waits.
        return Conversation(self.identity, self.epoch, self.block, self.own, sent, received)

    def open(self, frame: Frame) -> Message:
        """Return the message in a frame."""
        return decode(frame.body)

    def address(self, role: PadRole) -> PadAddress:
        """Return the pad address of a role in this block."""
        return PadAddress(self.epoch, self.block, role)

    def frame_cover(self, role: PadRole, frame: Frame) -> tuple[bytes, ...]:
        """Return what the tag of a single frame covers: identity, role and the frame's exact bytes."""
        return (self.identity.prefix(), bytes([role]), frame.covered())

    def transcript_cover(self, role: PadRole, last: Frame) -> tuple[bytes, ...]:
        """Return what a transcript tag covers: identity, role, both directions so far, and ``last``, which carries it.

        ``last`` must not yet be in the conversation.
        """
        down, up = (self.sent, self.received) if self.own is Direction.TO_RECEIVER else (self.received, self.sent)
        return (self.identity.prefix(), bytes([role]), _framed(down), _framed(up), last.covered())

    def digest(self, role: PadRole, last: Frame) -> str:
        """Return SHA-256 of ``transcript_cover`` in hexadecimal: a name for it in reports; no tag is over a digest."""
        return hashlib.sha256(b"".join(self.transcript_cover(role, last))).hexdigest()
