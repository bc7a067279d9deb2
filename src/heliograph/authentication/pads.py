"""Pads have addresses, and a pad is spent only at its own (security.md 2).

An address is (link, epoch, block, role); a role fixes the direction, so two directions never share a pad, and "the
next free one" does not exist: losing a message never brings the two pools out of step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from heliograph.authentication.mac import PAD_BYTES, Pad
from heliograph.errors import LocalProtocolError

__all__ = [
    "PAD_SET_BITS",
    "PAD_SET_BYTES",
    "PadAddress",
    "PadDirection",
    "PadRole",
    "PadStore",
    "pad_set_bits",
    "split_pad_set",
]


class PadDirection(IntEnum):
    """Which way the message goes that a pad tags."""

    TO_RECEIVER = 0
    TO_TRANSMITTER = 1


class PadRole(IntEnum):
    """The seven tagged messages of a block, in order. Odd ones go from the receiver's site to the transmitter's."""

    PROPOSAL = 0
    CLOSURE = 1
    DECIDER = 2
    PARTICIPANT = 3
    DECISION = 4
    ACKNOWLEDGEMENT = 5
    SETTLEMENT = 6

    @property
    def direction(self) -> PadDirection:
        """The only direction in which this pad is used."""
        return PadDirection(self % 2)


PAD_SET_BYTES = PAD_BYTES * len(PadRole)
PAD_SET_BITS = 8 * PAD_SET_BYTES


def pad_set_bits(direction: PadDirection) -> int:
    """Return how many of a pad set's bits serve one direction: four pads to the receiver, three back."""
    return 8 * PAD_BYTES * sum(role.direction is direction for role in PadRole)


@dataclass(frozen=True, slots=True)
class PadAddress:
    """Where a pad lives on its link."""

    epoch: int
    block: int
    role: PadRole


class PadStore(Protocol):
    """Durable pads. Every method returns only after its change would survive a crash."""

    def burn(self, address: PadAddress) -> Pad:
        """Mark the pad as used, then return it. Raises PadsExhausted if it is absent or was used before."""

    def attempt(self, address: PadAddress) -> tuple[Pad, int]:
        """Count one more attempt to check a tag, then return the pad and the count. Raises PadsExhausted."""

    def accepted(self, address: PadAddress, forgery_bound: float) -> None:
        """Record that a tag was accepted: no other message is accepted under this pad. Adds to the epsilon ledger."""


def split_pad_set(material: bytes) -> dict[PadRole, Pad]:
    """Cut 224 secret bytes into one pad for each role."""
    if len(material) != PAD_SET_BYTES:
        raise LocalProtocolError(f"a pad set has {PAD_SET_BYTES} bytes, not {len(material)}")
    return {role: Pad(material[role * PAD_BYTES : (role + 1) * PAD_BYTES]) for role in PadRole}
