"""What the commit protocol makes durable, one record for each step of security.md 3."""

from __future__ import annotations

from dataclasses import dataclass, field

from heliograph.bits import BitString
from heliograph.types import BlockId, Disclosed, IntensityCounts

__all__ = [
    "BlockReport",
    "CommitRecord",
    "CommittedLocal",
    "DecidedAbort",
    "DecidedCommit",
    "Marks",
    "ObeyedAbort",
    "ObeyedCommit",
    "PeerAcknowledged",
    "PeerSettled",
    "StoredCommitment",
]


@dataclass(frozen=True, slots=True)
class BlockReport:
    """The public figures of a block that made a key; both sites compute the same ones.

    ``transcript_sha256``: of what the participant's tag covers, for the comparison of chains.
    """

    parameters: str
    pulses: int
    sifted_bits: int
    key: IntensityCounts
    test: IntensityCounts
    disclosed: Disclosed
    two_way_rule: str
    efficiency: float | None
    phase_error_upper: float
    secret_key_length: int
    double_clicks: int
    eps_sec: float
    eps_cor: float
    transcript_sha256: str = ""


@dataclass(frozen=True, slots=True)
class CommittedLocal:
    """Participant, step 2: the key is stored and its acceptance, sent next, will be resent verbatim."""

    block: BlockId
    secret: BitString
    report: BlockReport
    acceptance: bytes


@dataclass(frozen=True, slots=True)
class DecidedCommit:
    """Decider, step 3: commit, final; with the key, the refill's addresses and this site's own key_IDs."""

    block: BlockId
    secret: BitString
    report: BlockReport
    refill_for: tuple[int, ...]
    key_ids: tuple[str, ...]
    decision: bytes


@dataclass(frozen=True, slots=True)
class DecidedAbort:
    """Decider, step 3: abort, final; kept only to answer a participant that is COMMITTED_LOCAL."""

    block: BlockId
    decision: bytes


@dataclass(frozen=True, slots=True)
class ObeyedCommit:
    """Participant, step 4: COMMITTED_BOTH; refill, the decider's keys and this site's own, not yet deliverable."""

    block: BlockId
    refill_for: tuple[int, ...]
    peer_key_ids: tuple[str, ...]
    own_key_ids: tuple[str, ...]
    acknowledgement: bytes


@dataclass(frozen=True, slots=True)
class ObeyedAbort:
    """Participant, step 4: destroyed."""

    block: BlockId
    acknowledgement: bytes


@dataclass(frozen=True, slots=True)
class PeerAcknowledged:
    """Decider, step 5: COMMITTED_BOTH; refill usable, own keys deliverable, the participant's keys stored."""

    block: BlockId
    peer_key_ids: tuple[str, ...]
    settlement: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerSettled:
    """Participant, last step: own keys deliverable."""

    block: BlockId


@dataclass(frozen=True, slots=True)
class StoredCommitment:
    """A block in doubt as the store remembers it: enough to take the commit protocol up again after a restart.

    ``stage``: "decided" (decider, unacknowledged), "local" (participant, COMMITTED_LOCAL), "obeyed" (participant,
    unsettled) or "ended" (``wire`` only answers a peer that did not hear our last word). ``length``: secret bits.
    """

    block: BlockId
    stage: str
    refills: int
    length: int
    wire: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Marks:
    """How far a site has durably come on a link; compared, authenticated, at each connection (security.md 4).

    ``epoch``: 0 before the first; ``touched``: highest block of the epoch for which this site burnt a pad;
    ``proved``: highest for which it holds the peer's accepted tag; ``committed``: blocks of this epoch that made a key;
    ``pads``: complete pad sets left for blocks not yet begun.
    """

    epoch: int
    touched: int
    proved: int
    committed: int
    pads: int


CommitRecord = (
    CommittedLocal | DecidedCommit | DecidedAbort | ObeyedCommit | ObeyedAbort | PeerAcknowledged | PeerSettled
)
