"""The states of the transmitter's block machine: each carries exactly the data that is valid in it.

``transmitter`` decides how one follows from another; from the decision on, the states are those of ``commitment``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heliograph.protocol import jobs, one_way
from heliograph.protocol import messages as m
from heliograph.protocol.conversation import Conversation
from heliograph.protocol.frames import Frame
from heliograph.protocol.records import BlockReport
from heliograph.protocol.registration import LinkRegistration
from heliograph.types import BlockParameters, PulseRecord, ReconciledBlock, SecretKey, VerifiedBlock

__all__ = [
    "LOCAL_STATES",
    "Amplifying",
    "Answering",
    "AnsweringRound",
    "AwaitingAcceptance",
    "AwaitingClosure",
    "AwaitingParticipant",
    "AwaitingReconciliation",
    "AwaitingVerdict",
    "Challenging",
    "CheckingClosure",
    "CheckingParticipant",
    "Concluding",
    "Context",
    "DrawingChallenge",
    "DrawingKeyIds",
    "DrawingSeed",
    "Emitting",
    "Judging",
    "Proposing",
    "Revealing",
    "SendingMore",
    "Sent",
    "Sifting",
    "State",
    "TaggingDecision",
    "TaggingProposal",
    "TaggingTranscript",
]


@dataclass(frozen=True, slots=True)
class Context:
    """What stays the same through the block. ``refills``: how many later blocks this one's key will serve."""

    registration: LinkRegistration
    parameters: BlockParameters
    refill_for: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What every state of this machine holds."""

    context: Context
    talk: Conversation


@dataclass(frozen=True, slots=True)
class Proposing(State):
    """Not begun."""


@dataclass(frozen=True, slots=True)
class TaggingProposal(State):
    """The proposal's tag is being made."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class AwaitingAcceptance(State):
    """The parameters are authenticated at the peer when it accepts; no pulse has left."""


@dataclass(frozen=True, slots=True)
class Emitting(State):
    """The module is sending. The closure may overtake the module's own word that the light has left."""

    early: Frame | None = None


@dataclass(frozen=True, slots=True)
class AwaitingClosure(State):
    """The light has left; not one basis or intensity is revealed before the closure's tag is checked."""

    pulses: PulseRecord = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckingClosure(State):
    """The closure's tag is being checked."""

    pulses: PulseRecord = field(repr=False)
    closure: m.QuantumPhaseClosed = field(repr=False)


@dataclass(frozen=True, slots=True)
class Revealing(State):
    """The closure is authentic; the reveal is being put together."""


@dataclass(frozen=True, slots=True)
class AwaitingReconciliation(State):
    """Bases and intensities are out."""

    revealed: jobs.Revealed = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sifting(State):
    """Sifting, and answering the first parities."""

    revealed: jobs.Revealed = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answering(State):
    """Ready for the next round of parities."""

    answered: jobs.Answered = field(repr=False)
    double_clicks: int


@dataclass(frozen=True, slots=True)
class AnsweringRound(State):
    """Parities are being looked up."""

    answered: jobs.Answered = field(repr=False)
    double_clicks: int


@dataclass(frozen=True, slots=True)
class Sent(State):
    """One way: the syndrome is out; the peer may name frames that need more of it, once."""

    sent: one_way.Sent = field(repr=False)
    double_clicks: int


@dataclass(frozen=True, slots=True)
class SendingMore(State):
    """One way: the rest of the syndrome is being made."""

    sent: one_way.Sent = field(repr=False)
    double_clicks: int


@dataclass(frozen=True, slots=True)
class Concluding(State):
    """The receiver's counts are being checked."""

    double_clicks: int


@dataclass(frozen=True, slots=True)
class DrawingChallenge(State):
    """The last parity is out; only now the seed of the verification hash is drawn."""

    block: ReconciledBlock
    double_clicks: int


@dataclass(frozen=True, slots=True)
class Challenging(State):
    """The verification hash is being taken."""

    block: ReconciledBlock
    double_clicks: int
    seed: bytes


@dataclass(frozen=True, slots=True)
class AwaitingVerdict(State):
    """The challenge is out."""

    block: ReconciledBlock
    double_clicks: int


@dataclass(frozen=True, slots=True)
class Judging(State):
    """The block is held against its acceptance set."""

    block: VerifiedBlock


@dataclass(frozen=True, slots=True)
class DrawingSeed(State):
    """Closure, reconciliation, verification and length are final; only now the amplification seed is drawn."""

    block: VerifiedBlock
    report: BlockReport


@dataclass(frozen=True, slots=True)
class Amplifying(State):
    """Privacy amplification is under way."""

    report: BlockReport
    seed: bytes


@dataclass(frozen=True, slots=True)
class TaggingTranscript(State):
    """The decider's tag over the whole transcript is being made."""

    report: BlockReport
    secret: SecretKey
    frame: Frame


@dataclass(frozen=True, slots=True)
class AwaitingParticipant(State):
    """The transcript tag is out: from here only a tagged DECISION ends the block."""

    report: BlockReport
    secret: SecretKey


@dataclass(frozen=True, slots=True)
class CheckingParticipant(State):
    """The participant's tag over the same transcript is being checked."""

    report: BlockReport
    secret: SecretKey


@dataclass(frozen=True, slots=True)
class DrawingKeyIds(State):
    """Both transcripts agree; names for this site's keys are being drawn."""

    report: BlockReport
    secret: SecretKey


@dataclass(frozen=True, slots=True)
class TaggingDecision(State):
    """The decision's tag is being made."""

    report: BlockReport
    secret: SecretKey
    key_ids: tuple[str, ...]
    frame: Frame


# States in which giving up is local: nothing that could have committed the peer has left.
LOCAL_STATES = (
    Proposing,
    TaggingProposal,
    AwaitingAcceptance,
    Emitting,
    AwaitingClosure,
    CheckingClosure,
    Revealing,
    AwaitingReconciliation,
    Sifting,
    Answering,
    AnsweringRound,
    Sent,
    SendingMore,
    Concluding,
    DrawingChallenge,
    Challenging,
    AwaitingVerdict,
    Judging,
    DrawingSeed,
    Amplifying,
    TaggingTranscript,
)
