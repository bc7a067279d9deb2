"""Everything that may cross the classical channel inside a block, one record for each message.

T is the transmitter's site (decider), R the receiver's (participant). All of it is public; none of it is key.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "Acknowledgement",
    "AmplificationSeed",
    "BasisReveal",
    "BlockAbandoned",
    "BlockAccepted",
    "Decision",
    "Message",
    "MoreSyndrome",
    "ParityReply",
    "ParityRequest",
    "ParticipantAccept",
    "Proposal",
    "QuantumPhaseClosed",
    "ReconciliationEnd",
    "ReconciliationStart",
    "Settlement",
    "Syndrome",
    "SyndromeRequest",
    "VerificationChallenge",
    "Verified",
]

Count = Annotated[int, Meta(ge=0, lt=2**48)]
Seed32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Tag16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
# Our choice: a field never holds more than this; a frame is capped as a whole by the transport.
Blob = Annotated[bytes, Meta(max_length=64 * 2**20)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
IntensityErrors = Annotated[tuple[Count, ...], Meta(max_length=256)]
Refills = Annotated[tuple[Count, ...], Meta(max_length=16)]


class _Message(Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    """Common form: an array whose first item names the message."""


class Proposal(_Message, frozen=True):
    """T -> R, tagged: the next block, with parameters that both registrations hold under this name and digest."""

    parameters: Name
    digest: Seed32


class BlockAccepted(_Message, frozen=True):
    """R -> T: the detectors are armed."""


class QuantumPhaseClosed(_Message, frozen=True):
    """R -> T, tagged at once: detection is over; where it clicked and in which basis. Never the bits.

    ``slots``: gaps between detected slots, ``width`` bytes each, little endian; ``bases``: packed, 1 = X.
    """

    detections: Count
    width: Annotated[int, Meta(ge=1, le=8)]
    slots: Blob
    bases: Blob
    double_clicks: Count
    dead_time_clicks: Count


class BasisReveal(_Message, frozen=True):
    """T -> R, only after a checked closure: bases and intensities at the detected slots, and T's test-basis bits."""

    bases: Blob
    intensities: Blob
    test_detections: Count
    test_bits: Blob


class ReconciliationStart(_Message, frozen=True):
    """R -> T: R's test-basis bits, the public seed of the passes, R's parities of the first groups."""

    test_detections: Count
    test_bits: Blob
    seed: Seed32
    count: Count
    parities: Blob


class ParityRequest(_Message, frozen=True):
    """R -> T: R's parities of the next groups, packed."""

    count: Count
    parities: Blob


class ParityReply(_Message, frozen=True):
    """T -> R: T's parities of the same groups, packed."""

    count: Count
    parities: Blob


class SyndromeRequest(_Message, frozen=True):
    """R -> T, one-way reconciliation: R's test-basis bits; the syndrome is due."""

    test_detections: Count
    test_bits: Blob


class Syndrome(_Message, frozen=True):
    """T -> R: parities of T's bits by the code that both sides know, packed, frame after frame."""

    count: Count
    parities: Blob


class MoreSyndrome(_Message, frozen=True):
    """R -> T, a few times at most: which frames, one bit for each, need the next rows kept back."""

    frames: Count
    failed: Blob


class ReconciliationEnd(_Message, frozen=True):
    """R -> T: R has corrected its bits; exact key-basis errors (security.md 5) and the ledger as R counts it."""

    key_errors: IntensityErrors
    zeros: Count
    errors_given_0: Count
    ones: Count
    errors_given_1: Count
    parities_a: Count
    parities_b: Count


class VerificationChallenge(_Message, frozen=True):
    """T -> R: a fresh hash seed, drawn after the last parity, and the hash of T's bits under it."""

    seed: Seed32
    tag: Tag16


class Verified(_Message, frozen=True):
    """R -> T: the hashes are equal."""


class AmplificationSeed(_Message, frozen=True):
    """T -> R, with the decider's tag over the whole transcript: the seed of privacy amplification."""

    length: Count
    seed: Blob


class ParticipantAccept(_Message, frozen=True):
    """R -> T, with the participant's tag over the same transcript: stored as COMMITTED_LOCAL."""


class Decision(_Message, frozen=True):
    """T -> R, tagged and final: commit or abort; the blocks that this one's refill serves; T's key_IDs."""

    commit: bool
    refill_for: Refills
    key_ids: Blob


class Acknowledgement(_Message, frozen=True):
    """R -> T, tagged: the decision is stored; R's key_IDs."""

    commit: bool
    key_ids: Blob


class Settlement(_Message, frozen=True):
    """T -> R, tagged: R's key_IDs are stored; R may hand its keys out."""


class BlockAbandoned(_Message, frozen=True):
    """Either way, untagged: honoured only before COMMITTED_LOCAL, and it costs at most this block."""

    reason: Annotated[str, Meta(max_length=200)]


Message = (
    Proposal
    | BlockAccepted
    | QuantumPhaseClosed
    | BasisReveal
    | ReconciliationStart
    | ParityRequest
    | ParityReply
    | SyndromeRequest
    | Syndrome
    | MoreSyndrome
    | ReconciliationEnd
    | VerificationChallenge
    | Verified
    | AmplificationSeed
    | ParticipantAccept
    | Decision
    | Acknowledgement
    | Settlement
    | BlockAbandoned
)
