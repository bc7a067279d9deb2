"""The commit protocol: never a key on one side only (security.md 3).

The decider is the transmitter's site, the participant the receiver's. These states hold only what the store holds
too, so a restarted site takes up a block in doubt where it stood. Every message here is stored before it is sent and
resent verbatim; a peer that repeats its message gets our stored answer again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from heliograph.authentication.pads import PadRole
from heliograph.errors import RemoteProtocolError
from heliograph.protocol import cutting
from heliograph.protocol.actions import (
    Action,
    CheckTag,
    Discard,
    Draw,
    Drawn,
    Event,
    Failed,
    Finish,
    Persist,
    Received,
    Send,
    Tag,
    TagAccepted,
    Tagged,
    TagRefused,
)
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.conversation import LinkIdentity
from heliograph.protocol.frames import Direction, Frame, parse_frame
from heliograph.protocol.identifiers import key_id_bytes, new_key_ids, parse_key_ids
from heliograph.protocol.messages import Acknowledgement, Decision, Message, ParticipantAccept, Settlement
from heliograph.protocol.records import DecidedAbort, ObeyedAbort, ObeyedCommit, PeerAcknowledged, PeerSettled
from heliograph.protocol.refusal import refuse
from heliograph.protocol.registration import LinkRegistration
from heliograph.types import BlockId

__all__ = [
    "REFILLS_MAX",
    "AwaitingAcknowledgement",
    "AwaitingDecision",
    "AwaitingSettlement",
    "CheckingAcknowledgement",
    "CheckingDecision",
    "CheckingSettlement",
    "CommitContext",
    "CommitState",
    "DrawingOwnKeyIds",
    "Ended",
    "TaggingAbort",
    "TaggingAcknowledgement",
    "TaggingSettlement",
    "abort",
    "commit_frame",
    "step",
]

# Our choice: a block refills the pads of at most this many later blocks.
REFILLS_MAX = 6

# What a peer repeats that did not hear our last word of that kind. Nothing else is answered: two last words that
# answered each other would never end.
_ASKED_BY: dict[type[Message], type[Message]] = {
    Decision: ParticipantAccept,  # an abort: it needs no acknowledgement, but whoever accepted must hear of it
    Acknowledgement: Decision,
    Settlement: Acknowledgement,
}


@dataclass(frozen=True, slots=True)
class CommitContext:
    """Whose block this is. ``length``: secret bits of the block, 0 when the block was aborted before there were any."""

    registration: LinkRegistration
    identity: LinkIdentity
    epoch: int
    block: BlockId
    length: int


# Decider.
@dataclass(frozen=True, slots=True)
class TaggingAbort:
    """This site gives the block up after its transcript tag left: only a tagged DECISION may say so."""

    context: CommitContext
    frame: Frame


@dataclass(frozen=True, slots=True)
class AwaitingAcknowledgement:
    """DECISION(commit) is stored and sent; it is final."""

    context: CommitContext
    decision: bytes = field(repr=False)
    refills: int


@dataclass(frozen=True, slots=True)
class CheckingAcknowledgement:
    """The tag of an acknowledgement is being checked."""

    waiting: AwaitingAcknowledgement
    message: Acknowledgement


@dataclass(frozen=True, slots=True)
class TaggingSettlement:
    """The acknowledgement is good; the settlement's tag is being made."""

    waiting: AwaitingAcknowledgement
    peer_key_ids: tuple[str, ...]
    frame: Frame


# Participant.
@dataclass(frozen=True, slots=True)
class AwaitingDecision:
    """COMMITTED_LOCAL: neither delivers nor destroys by itself."""

    context: CommitContext
    acceptance: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckingDecision:
    """The tag of a decision is being checked."""

    waiting: AwaitingDecision
    message: Decision


@dataclass(frozen=True, slots=True)
class DrawingOwnKeyIds:
    """The decision is commit; names for this site's own keys are being drawn."""

    waiting: AwaitingDecision
    message: Decision


@dataclass(frozen=True, slots=True)
class TaggingAcknowledgement:
    """The acknowledgement's tag is being made."""

    waiting: AwaitingDecision
    decision: Decision
    own_key_ids: tuple[str, ...]
    frame: Frame


@dataclass(frozen=True, slots=True)
class AwaitingSettlement:
    """COMMITTED_BOTH; the peer's keys are deliverable here, our own when the peer has stored their names."""

    context: CommitContext
    acknowledgement: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckingSettlement:
    """The settlement's tag is being checked."""

    waiting: AwaitingSettlement


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing is open; ``resend``, our last word, answers a peer that did not hear it and repeats its own."""

    resend: bytes = field(default=b"", repr=False)


CommitState = (
    TaggingAbort
    | AwaitingAcknowledgement
    | CheckingAcknowledgement
    | TaggingSettlement
    | AwaitingDecision
    | CheckingDecision
    | DrawingOwnKeyIds
    | TaggingAcknowledgement
    | AwaitingSettlement
    | CheckingSettlement
    | Ended
)
CommitStep = tuple[CommitState, list[Action]]


def commit_frame(context: CommitContext, direction: Direction, role: PadRole, message: Message) -> Frame:
    """Return the tagged frame of a commit message; its sequence number is its role, so a restart changes no byte."""
    return Frame(direction, context.epoch, context.block, int(role), 0, encode(message), tagged=True)


def _cover(context: CommitContext, role: PadRole, frame: Frame) -> tuple[bytes, ...]:
    return (context.identity.prefix(), bytes([role]), frame.covered())


def _tagged(frame: Frame, tag: bytes) -> Frame:
    return Frame(
        frame.direction, frame.epoch, frame.block, frame.sequence, frame.last_seen, frame.body, tagged=True, tag=tag
    )


def _message(context: CommitContext, frame: Frame, own: Direction, role: PadRole) -> Message:
    if frame.direction == own:
        raise RemoteProtocolError("a frame of our own direction came back: reflected")
    if (frame.epoch, frame.block) != (context.epoch, context.block) or not frame.tagged:
        raise RemoteProtocolError(f"not a commit message of block {context.block}")
    if (frame.sequence, frame.last_seen) != (int(role), 0):
        raise RemoteProtocolError(f"frame {frame.sequence} where a {role.name.lower()} was due")
    return decode(frame.body)


def step(state: CommitState, event: Event) -> CommitStep:
    """Take one event. Raises RemoteProtocolError or LocalProtocolError for an illegal one, which changes nothing."""
    if isinstance(state, TaggingAbort) and isinstance(event, Failed):
        return Ended(), []  # no pad is left to say it with: the block is older than anything in doubt
    if isinstance(event, Failed) and not isinstance(state, Ended):
        return state, []  # a time-out ends no doubt: only the peer's tagged word or an operator does
    if isinstance(state, Ended):
        return state, _last_word(state, event)
    if isinstance(state, TaggingAbort | AwaitingAcknowledgement | CheckingAcknowledgement | TaggingSettlement):
        return _decider(state, event)
    return _participant(state, event)


def _last_word(state: Ended, event: Event) -> list[Action]:
    if not state.resend or not isinstance(event, Received) or not event.frame.tagged:
        return []
    last = parse_frame(state.resend)
    return [Send(last)] if isinstance(decode(event.frame.body), _ASKED_BY[type(decode(last.body))]) else []


def abort(context: CommitContext) -> CommitStep:
    """Begin DECISION(abort): on a time-out, or when a restart lost the transcript that the peer accepted.

    It is final when it is stored. The participant may hold nothing that it could acknowledge, so nobody waits for
    that; a participant that is COMMITTED_LOCAL repeats its acceptance until it has heard.
    """
    frame = commit_frame(
        context, Direction.TO_RECEIVER, PadRole.DECISION, Decision(commit=False, refill_for=(), key_ids=b"")
    )
    return TaggingAbort(context, frame), [Tag(PadRole.DECISION, _cover(context, PadRole.DECISION, frame))]


def _decider(state: CommitState, event: Event) -> CommitStep:
    match state, event:
        case TaggingAbort(context, frame), Tagged(_, tag):
            wire = _tagged(frame, tag)
            decided = DecidedAbort(context.block, wire.wire())
            discard = Discard("the block was aborted by this site's decision", "Aborted")
            return Ended(wire.wire()), [Persist(decided), Send(wire), discard]
        case AwaitingAcknowledgement(context), Received(frame):
            if frame.tagged and isinstance(decode(frame.body), ParticipantAccept):
                return state, [Send(parse_frame(state.decision))]  # it has not heard our decision
            message = _message(context, frame, Direction.TO_RECEIVER, PadRole.ACKNOWLEDGEMENT)
            if not isinstance(message, Acknowledgement):
                raise RemoteProtocolError(f"{type(message).__name__} while an acknowledgement is due")
            _check_acknowledgement(state, message)
            covered = _cover(context, PadRole.ACKNOWLEDGEMENT, frame)
            return CheckingAcknowledgement(state, message), [CheckTag(PadRole.ACKNOWLEDGEMENT, covered, frame.tag)]
        case CheckingAcknowledgement(waiting), TagRefused():
            return waiting, []
        case CheckingAcknowledgement(waiting, message), TagAccepted():
            return _acknowledged(waiting, message)
        case TaggingSettlement(waiting, peer_key_ids, frame), Tagged(_, tag):
            wire = _tagged(frame, tag)
            block = waiting.context.block
            record = PeerAcknowledged(block, peer_key_ids, wire.wire())
            return Ended(wire.wire()), [Persist(record), Send(wire), Finish()]
        case _:
            refuse(state, event)


def _check_acknowledgement(waiting: AwaitingAcknowledgement, message: Acknowledgement) -> None:
    """Refuse before an attempt is spent what could not be obeyed after it: a good tag is accepted only once."""
    if not message.commit:
        raise RemoteProtocolError("the acknowledgement is of another decision")
    context = waiting.context
    _, expected = cutting.key_counts(context.block, context.length, waiting.refills, context.registration)
    parse_key_ids(message.key_ids, expected)


def _check_decision(context: CommitContext, message: Decision) -> None:
    """As above. A refill goes to blocks after this one, each once; how many is bounded by our own constant."""
    if not message.commit:
        if message.refill_for or message.key_ids:
            raise RemoteProtocolError("an abort that hands out keys")
        return
    blocks = message.refill_for
    if not 1 <= len(blocks) <= REFILLS_MAX or any(b <= a for a, b in pairwise((context.block, *blocks))):
        raise RemoteProtocolError(f"a refill for blocks {blocks} from block {context.block}")
    if not cutting.refills_fit(context.block, context.length, len(blocks)):
        raise RemoteProtocolError(f"a refill for {len(blocks)} blocks from {context.length} secret bits")
    _, expected = _own_and_peer_counts(context, message)
    parse_key_ids(message.key_ids, expected)


def _acknowledged(waiting: AwaitingAcknowledgement, message: Acknowledgement) -> CommitStep:
    context = waiting.context
    _, expected = cutting.key_counts(context.block, context.length, waiting.refills, context.registration)
    key_ids = parse_key_ids(message.key_ids, expected)
    frame = commit_frame(context, Direction.TO_RECEIVER, PadRole.SETTLEMENT, Settlement())
    covered = _cover(context, PadRole.SETTLEMENT, frame)
    return TaggingSettlement(waiting, key_ids, frame), [Tag(PadRole.SETTLEMENT, covered)]


def _participant(state: CommitState, event: Event) -> CommitStep:
    match state, event:
        case AwaitingDecision(context), Received(frame):
            message = _message(context, frame, Direction.TO_TRANSMITTER, PadRole.DECISION)
            if not isinstance(message, Decision):
                raise RemoteProtocolError(f"{type(message).__name__} while a decision is due")
            _check_decision(context, message)
            covered = _cover(context, PadRole.DECISION, frame)
            return CheckingDecision(state, message), [CheckTag(PadRole.DECISION, covered, frame.tag)]
        case CheckingDecision(waiting), TagRefused():
            return waiting, []
        case CheckingDecision(waiting, message), TagAccepted():
            if not message.commit:
                return _acknowledge(waiting, message, ())
            own, _ = _own_and_peer_counts(waiting.context, message)
            return DrawingOwnKeyIds(waiting, message), [Draw(16 * own)]
        case DrawingOwnKeyIds(waiting, message), Drawn(data):
            return _acknowledge(waiting, message, new_key_ids(data))
        case TaggingAcknowledgement(waiting, decision, own_key_ids, frame), Tagged(_, tag):
            return _obey(waiting.context, decision, own_key_ids, _tagged(frame, tag))
        case AwaitingSettlement(context), Received(frame):
            if frame.tagged and isinstance(decode(frame.body), Decision):
                return state, [Send(parse_frame(state.acknowledgement))]  # it has not heard our acknowledgement
            message_ = _message(context, frame, Direction.TO_TRANSMITTER, PadRole.SETTLEMENT)
            if not isinstance(message_, Settlement):
                raise RemoteProtocolError(f"{type(message_).__name__} while a settlement is due")
            covered = _cover(context, PadRole.SETTLEMENT, frame)
            return CheckingSettlement(state), [CheckTag(PadRole.SETTLEMENT, covered, frame.tag)]
        case CheckingSettlement(waiting_), TagRefused():
            return waiting_, []
        case CheckingSettlement(waiting_), TagAccepted():
            return Ended(), [Persist(PeerSettled(waiting_.context.block)), Finish()]
        case _:
            refuse(state, event)


def _own_and_peer_counts(context: CommitContext, decision: Decision) -> tuple[int, int]:
    transmitter, receiver = cutting.key_counts(
        context.block, context.length, len(decision.refill_for), context.registration
    )
    return receiver, transmitter


def _acknowledge(waiting: AwaitingDecision, decision: Decision, own_key_ids: tuple[str, ...]) -> CommitStep:
    context = waiting.context
    message = Acknowledgement(decision.commit, key_id_bytes(own_key_ids))
    frame = commit_frame(context, Direction.TO_TRANSMITTER, PadRole.ACKNOWLEDGEMENT, message)
    covered = _cover(context, PadRole.ACKNOWLEDGEMENT, frame)
    return TaggingAcknowledgement(waiting, decision, own_key_ids, frame), [Tag(PadRole.ACKNOWLEDGEMENT, covered)]


def _obey(context: CommitContext, decision: Decision, own_key_ids: tuple[str, ...], frame: Frame) -> CommitStep:
    wire = frame.wire()
    if not decision.commit:
        aborted = ObeyedAbort(context.block, wire)
        discard = Discard("the block was aborted by the transmitter's site", "Aborted")
        return Ended(wire), [Persist(aborted), Send(frame), discard]
    _, expected = _own_and_peer_counts(context, decision)
    peer_key_ids = parse_key_ids(decision.key_ids, expected)
    obeyed = ObeyedCommit(context.block, tuple(decision.refill_for), peer_key_ids, own_key_ids, wire)
    return AwaitingSettlement(context, wire), [Persist(obeyed), Send(frame)]
