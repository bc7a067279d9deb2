"""The block machine of the transmitter's site: it reveals, answers, challenges, and decides.

Everything that decides a transition on this side is in this file and, from the decision on, in ``commitment``.
``step(state, event) -> (state, actions)``; an illegal event raises and changes nothing; a lost block is an outcome.
"""

from __future__ import annotations

from dataclasses import replace

from heliograph.authentication.pads import PadRole
from heliograph.errors import AuthenticationFailed, BlockDiscarded, RemoteProtocolError
from heliograph.postprocessing.amplification import amplify, seed_size_bytes
from heliograph.postprocessing.verification import accept_verified, verification_tag
from heliograph.protocol import commitment, cutting, jobs, one_way
from heliograph.protocol import messages as m
from heliograph.protocol.actions import (
    Action,
    CheckTag,
    Compute,
    Computed,
    Discard,
    Draw,
    Drawn,
    Emit,
    Emitted,
    Event,
    Failed,
    Persist,
    Received,
    Send,
    Start,
    Tag,
    TagAccepted,
    Tagged,
    TagRefused,
)
from heliograph.protocol.conversation import Conversation
from heliograph.protocol.frames import Direction, Frame
from heliograph.protocol.identifiers import key_id_bytes, new_key_ids
from heliograph.protocol.records import BlockReport, DecidedCommit
from heliograph.protocol.refusal import refuse
from heliograph.protocol.transmitter_states import (
    LOCAL_STATES,
    Amplifying,
    Answering,
    AnsweringRound,
    AwaitingAcceptance,
    AwaitingClosure,
    AwaitingParticipant,
    AwaitingReconciliation,
    AwaitingVerdict,
    Challenging,
    CheckingClosure,
    CheckingParticipant,
    Concluding,
    Context,
    DrawingChallenge,
    DrawingKeyIds,
    DrawingSeed,
    Emitting,
    Judging,
    Proposing,
    Revealing,
    SendingMore,
    Sent,
    Sifting,
    State,
    TaggingDecision,
    TaggingProposal,
    TaggingTranscript,
)
from heliograph.types import ReconciledBlock, SecretKey

__all__ = ["TransmitterState", "propose", "step"]


TransmitterState = State | commitment.CommitState
Step = tuple[TransmitterState, list[Action]]


def propose(context: Context, talk: Conversation) -> TransmitterState:
    """Return the machine before its first event, ``Start``."""
    return Proposing(context, talk)


def _give_up(state: State, discard: Discard) -> Step:
    abandoned = state.talk.draft(m.BlockAbandoned(discard.cause))
    return commitment.Ended(), [Send(abandoned), discard]


def step(state: TransmitterState, event: Event) -> Step:
    """Take one event. Illegal events raise and change nothing; a discarded block is an outcome, not an error."""
    if isinstance(state, commitment.CommitState):
        return commitment.step(state, event)
    try:
        return _transition(state, event)
    except BlockDiscarded as why:
        return _give_up(state, Discard(str(why), type(why).__name__))


def _transition(state: State, event: Event) -> Step:
    match state, event:
        case Proposing(context, talk), Start():
            parameters = context.parameters
            frame = talk.draft(m.Proposal(parameters.name, context.registration.digest()), tagged=True)
            covered = talk.frame_cover(PadRole.PROPOSAL, frame)
            return TaggingProposal(context, talk, frame), [Tag(PadRole.PROPOSAL, covered)]
        case TaggingProposal(context, talk, frame), Tagged(_, tag):
            sealed = replace(frame, tag=tag)
            return AwaitingAcceptance(context, talk.with_sent(sealed)), [Send(sealed)]
        case Emitting(context, talk, early), Emitted(pulses):
            waiting = AwaitingClosure(context, talk, pulses)
            return (waiting, []) if early is None else _transition(waiting, Received(early))
        case CheckingClosure(context, talk, pulses, closure), TagAccepted():
            job = Compute("reveal", jobs.reveal, (pulses, closure, context.parameters))
            return Revealing(context, talk), [job]
        case CheckingClosure() | CheckingParticipant(), TagRefused(role):
            failed = AuthenticationFailed(f"the {role.name.lower()} tag does not match: damaged or forged")
            return _refused_tag(state, failed)
        case AwaitingParticipant(), Failed():
            return commitment.abort(_commit_context(state))
        case CheckingParticipant() | DrawingKeyIds() | TaggingDecision(), Failed():
            return state, []  # the next word is our own shell's: the decision is about to fall by itself
        case _, Failed(cause, reason):
            return _give_up(state, Discard(reason, cause))
        case _, Received(frame):
            return _received(state, frame)
        case _, Computed(_, result):
            return _computed(state, event, result)
        case _:
            return _answered(state, event)


def _refused_tag(state: State, failed: AuthenticationFailed) -> Step:
    if isinstance(state, CheckingParticipant):
        return commitment.abort(_commit_context(state))
    raise failed


def _commit_context(state: State) -> commitment.CommitContext:
    context, talk = state.context, state.talk
    length = context.parameters.secret_key_length
    return commitment.CommitContext(context.registration, talk.identity, talk.epoch, talk.block, length)


def _received(state: State, frame: Frame) -> Step:
    """Take the peer's next frame, which is unauthenticated unless said otherwise."""
    context = state.context
    talk = state.talk.with_received(frame)
    message = talk.open(frame)
    if frame.tagged != isinstance(message, m.QuantumPhaseClosed | m.ParticipantAccept):
        raise RemoteProtocolError(f"a {type(message).__name__} {'with' if frame.tagged else 'without'} a tag")
    match state, message:
        case AwaitingParticipant(), m.BlockAbandoned():
            return commitment.abort(_commit_context(state))
        case _, m.BlockAbandoned(reason) if isinstance(state, LOCAL_STATES):
            return commitment.Ended(), [Discard(f"the receiver's site gave the block up: {reason}", "Abandoned")]
        case AwaitingAcceptance(), m.BlockAccepted():
            return Emitting(context, talk), [Emit(context.parameters)]
        case Emitting(early=None), m.QuantumPhaseClosed():
            return replace(state, early=frame), []
        case AwaitingClosure(_, _, pulses), m.QuantumPhaseClosed():
            covered = talk.frame_cover(PadRole.CLOSURE, frame)
            return CheckingClosure(context, talk, pulses, message), [CheckTag(PadRole.CLOSURE, covered, frame.tag)]
        case AwaitingReconciliation(_, _, revealed), m.ReconciliationStart() if not _is_one_way(context):
            job = Compute("sift", jobs.begin_answering, (revealed, message, context.parameters))
            return Sifting(context, talk, revealed), [job]
        case AwaitingReconciliation(_, _, revealed), m.SyndromeRequest() if _is_one_way(context):
            job = Compute("sift", one_way.begin_sending, (revealed, message, context.parameters))
            return Sifting(context, talk, revealed), [job]
        case Sent(_, _, sent, doubles), m.MoreSyndrome():
            job = Compute("answer", one_way.send_more, (sent, message))
            return SendingMore(context, talk, sent, doubles), [job]
        case Sent(_, _, sent, doubles), m.ReconciliationEnd():
            job = Compute("conclude", one_way.reference, (sent, message))
            return Concluding(context, talk, doubles), [job]
        case Answering(_, _, answered, doubles), m.ParityRequest(count, parities):
            job = Compute("answer", jobs.answer, (answered, count, parities))
            return AnsweringRound(context, talk, answered, doubles), [job]
        case Answering(_, _, answered, doubles), m.ReconciliationEnd():
            job = Compute("conclude", jobs.reference, (answered, message))
            return Concluding(context, talk, doubles), [job]
        case AwaitingVerdict(_, _, block, doubles), m.Verified():
            verified = accept_verified(block)
            rule = jobs.charging_rule(context.registration.reconciliation)
            job = Compute("judge", jobs.judge, (block, context.parameters, doubles, rule))
            return Judging(context, talk, verified), [job]
        case AwaitingParticipant(_, _, report, secret), m.ParticipantAccept():
            covered = state.talk.transcript_cover(PadRole.PARTICIPANT, frame)
            named = replace(report, transcript_sha256=state.talk.digest(PadRole.PARTICIPANT, frame))
            checking = CheckingParticipant(context, talk, named, secret)
            return checking, [CheckTag(PadRole.PARTICIPANT, covered, frame.tag)]
        case _:
            refuse(state, Received(frame))


def _is_one_way(context: Context) -> bool:
    """Return whether this link's blocks are reconciled one way: as registered, whatever the peer sends."""
    return context.registration.reconciliation == "ldpc"


def _computed(state: State, event: Event, result: object) -> Step:
    context, talk = state.context, state.talk
    match state, result:
        case Revealing(), (jobs.Revealed() as revealed, m.BasisReveal() as message):
            frame = talk.draft(message)
            return AwaitingReconciliation(context, talk.with_sent(frame), revealed), [Send(frame)]
        case Sifting(_, _, revealed), (jobs.Answered() as answered, m.ParityReply() as reply):
            frame = talk.draft(reply)
            return Answering(context, talk.with_sent(frame), answered, revealed.double_clicks), [Send(frame)]
        case Sifting(_, _, revealed), (one_way.Sent() as sent, m.Syndrome() as syndrome):
            frame = talk.draft(syndrome)
            return Sent(context, talk.with_sent(frame), sent, revealed.double_clicks), [Send(frame)]
        case SendingMore(_, _, sent, doubles), m.Syndrome():
            frame = talk.draft(result)
            return Sent(context, talk.with_sent(frame), sent, doubles), [Send(frame)]
        case AnsweringRound(_, _, answered, doubles), m.ParityReply():
            frame = talk.draft(result)
            return Answering(context, talk.with_sent(frame), answered, doubles), [Send(frame)]
        case Concluding(_, _, doubles), ReconciledBlock():
            return DrawingChallenge(context, talk, result, doubles), [Draw(32)]
        case Challenging(_, _, block, doubles, seed), bytes():
            frame = talk.draft(m.VerificationChallenge(seed, result))
            return AwaitingVerdict(context, talk.with_sent(frame), block, doubles), [Send(frame)]
        case Judging(_, _, verified), BlockReport():
            family, n = context.registration.amplification, len(verified.bits)
            size = seed_size_bytes(n, result.secret_key_length, family)
            return DrawingSeed(context, talk, verified, result), [Draw(size)]
        case Amplifying(_, _, report, seed), SecretKey():
            frame = talk.draft(m.AmplificationSeed(report.secret_key_length, seed), tagged=True)
            covered = talk.transcript_cover(PadRole.DECIDER, frame)
            return TaggingTranscript(context, talk, report, result, frame), [Tag(PadRole.DECIDER, covered)]
        case _:
            refuse(state, event)


def _answered(state: State, event: Event) -> Step:
    """Take what the shell drew, tagged or checked."""
    context, talk = state.context, state.talk
    match state, event:
        case DrawingChallenge(_, _, block, doubles), Drawn(seed):
            job = Compute("hash", verification_tag, (block.bits, seed))
            return Challenging(context, talk, block, doubles, seed), [job]
        case DrawingSeed(_, _, block, report), Drawn(seed):
            job = Compute(
                "amplify", amplify, (block, seed, report.secret_key_length, context.registration.amplification)
            )
            return Amplifying(context, talk, report, seed), [job]
        case TaggingTranscript(_, _, report, secret, frame), Tagged(_, tag):
            sealed = replace(frame, tag=tag)
            return AwaitingParticipant(context, talk.with_sent(sealed), report, secret), [Send(sealed)]
        case CheckingParticipant(_, _, report, secret), TagAccepted():
            own, _ = cutting.key_counts(talk.block, len(secret.bits), len(context.refill_for), context.registration)
            return DrawingKeyIds(context, talk, report, secret), [Draw(16 * own)]
        case DrawingKeyIds(_, _, report, secret), Drawn(data):
            return _decide(state, report, secret, new_key_ids(data))
        case TaggingDecision(_, _, report, secret, key_ids, frame), Tagged(_, tag):
            sealed = replace(frame, tag=tag)
            wire = sealed.wire()
            record = DecidedCommit(talk.block, secret.bits, report, context.refill_for, key_ids, wire)
            refills = len(context.refill_for)
            waiting = commitment.AwaitingAcknowledgement(_commit_context(state), wire, refills)
            return waiting, [Persist(record), Send(sealed)]
        case _:
            refuse(state, event)


def _decide(state: State, report: BlockReport, secret: SecretKey, key_ids: tuple[str, ...]) -> Step:
    context, talk = state.context, state.talk
    message = m.Decision(commit=True, refill_for=context.refill_for, key_ids=key_id_bytes(key_ids))
    frame = commitment.commit_frame(_commit_context(state), Direction.TO_RECEIVER, PadRole.DECISION, message)
    covered = talk.frame_cover(PadRole.DECISION, frame)
    return TaggingDecision(context, talk, report, secret, key_ids, frame), [Tag(PadRole.DECISION, covered)]
