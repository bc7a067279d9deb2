"""The block machine of the receiver's site: it closes, corrects, verifies, accepts, and obeys the decision.

Everything that decides a transition on this side is in this file and, from COMMITTED_LOCAL on, in ``commitment``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from heliograph.authentication.pads import PadRole
from heliograph.errors import AuthenticationFailed, BlockDiscarded, RemoteProtocolError
from heliograph.postprocessing.amplification import amplify, seed_size_bytes
from heliograph.postprocessing.verification import verify
from heliograph.protocol import commitment, jobs, one_way
from heliograph.protocol import messages as m
from heliograph.protocol.actions import (
    Action,
    CheckTag,
    Clicked,
    Collect,
    Compute,
    Computed,
    Discard,
    Draw,
    Drawn,
    Event,
    Failed,
    Persist,
    Received,
    Send,
    Tag,
    TagAccepted,
    Tagged,
    TagRefused,
)
from heliograph.protocol.conversation import Conversation
from heliograph.protocol.frames import Frame
from heliograph.protocol.records import BlockReport, CommittedLocal
from heliograph.protocol.refusal import refuse
from heliograph.protocol.registration import LinkRegistration
from heliograph.types import BlockParameters, DetectionRecord, ReconciledBlock, SecretKey, VerifiedBlock

__all__ = ["ReceiverState", "State", "await_proposal", "step"]


@dataclass(frozen=True, slots=True)
class State:
    """What every state of this machine holds."""

    registration: LinkRegistration
    talk: Conversation


@dataclass(frozen=True, slots=True)
class AwaitingProposal(State):
    """Not begun."""


@dataclass(frozen=True, slots=True)
class CheckingProposal(State):
    """The proposal's tag is being checked; nothing is armed before."""

    parameters: BlockParameters


@dataclass(frozen=True, slots=True)
class _Running(State):
    parameters: BlockParameters


@dataclass(frozen=True, slots=True)
class Collecting(_Running):
    """The detectors are armed."""


@dataclass(frozen=True, slots=True)
class TaggingClosure(_Running):
    """Detection is over; the closure's tag is being made."""

    detections: DetectionRecord
    frame: Frame = field(repr=False)


@dataclass(frozen=True, slots=True)
class AwaitingReveal(_Running):
    """The closure is out."""

    detections: DetectionRecord


@dataclass(frozen=True, slots=True)
class DrawingPasses(_Running):
    """The public seed of the reconciliation's passes is being drawn."""

    detections: DetectionRecord
    reveal: m.BasisReveal = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sifting(_Running):
    """Sifting, and asking for the first parities."""

    detections: DetectionRecord


@dataclass(frozen=True, slots=True)
class AwaitingParities(_Running):
    """A round of parities is asked for."""

    asked: jobs.Asked = field(repr=False)
    double_clicks: int


@dataclass(frozen=True, slots=True)
class AwaitingSyndrome(_Running):
    """One way: a syndrome is due."""

    wanted: one_way.Wanted = field(repr=False)
    double_clicks: int


@dataclass(frozen=True, slots=True)
class Correcting(_Running):
    """Correcting with one round's parities, or with a syndrome."""

    double_clicks: int


@dataclass(frozen=True, slots=True)
class AwaitingChallenge(_Running):
    """Corrected; the peer draws the verification seed."""

    block: ReconciledBlock
    double_clicks: int


@dataclass(frozen=True, slots=True)
class Verifying(_Running):
    """The verification hash is being compared."""

    block: ReconciledBlock
    double_clicks: int


@dataclass(frozen=True, slots=True)
class Judging(_Running):
    """The block is held against its acceptance set."""

    block: VerifiedBlock


@dataclass(frozen=True, slots=True)
class AwaitingSeed(_Running):
    """Verified and accepted; the peer draws the amplification seed and tags the transcript."""

    block: VerifiedBlock
    report: BlockReport


@dataclass(frozen=True, slots=True)
class CheckingTranscript(_Running):
    """The decider's tag over the whole transcript is being checked."""

    block: VerifiedBlock
    report: BlockReport
    seed: bytes


@dataclass(frozen=True, slots=True)
class Amplifying(_Running):
    """The transcript is authentic; privacy amplification is under way."""

    report: BlockReport


@dataclass(frozen=True, slots=True)
class TaggingTranscript(_Running):
    """This side's tag over the same transcript is being made."""

    report: BlockReport
    secret: SecretKey
    frame: Frame = field(repr=False)


ReceiverState = State | commitment.CommitState
Step = tuple[ReceiverState, list[Action]]


def await_proposal(registration: LinkRegistration, talk: Conversation) -> ReceiverState:
    """Return the machine before its first event, the peer's proposal."""
    return AwaitingProposal(registration, talk)


def _give_up(state: State, discard: Discard) -> Step:
    abandoned = state.talk.draft(m.BlockAbandoned(discard.cause))
    return commitment.Ended(), [Send(abandoned), discard]


def step(state: ReceiverState, event: Event) -> Step:
    """Take one event. Illegal events raise and change nothing; a discarded block is an outcome, not an error."""
    if isinstance(state, commitment.CommitState):
        return commitment.step(state, event)
    try:
        return _transition(state, event)
    except BlockDiscarded as why:
        return _give_up(state, Discard(str(why), type(why).__name__))


def _transition(state: State, event: Event) -> Step:
    match state, event:
        case _, Failed(cause, reason):
            return _give_up(state, Discard(reason, cause))
        case CheckingProposal(), TagRefused():
            return commitment.Ended(), []  # no block began: its pads wait for the real proposal (security.md 1)
        case CheckingTranscript(), TagRefused(role):
            raise AuthenticationFailed(f"the {role.name.lower()} tag does not match: damaged or forged")
        case _, Received(frame):
            return _received(state, frame)
        case _, Computed(_, result):
            return _computed(state, event, result)
        case _:
            return _answered(state, event)


def _received(state: State, frame: Frame) -> Step:
    """Take the peer's next frame, which is unauthenticated unless said otherwise."""
    registration = state.registration
    talk = state.talk.with_received(frame)
    message = talk.open(frame)
    if frame.tagged != isinstance(message, m.Proposal | m.AmplificationSeed):
        raise RemoteProtocolError(f"a {type(message).__name__} {'with' if frame.tagged else 'without'} a tag")
    match state, message:
        case _, m.BlockAbandoned(reason):
            return commitment.Ended(), [Discard(f"the transmitter's site gave the block up: {reason}", "Abandoned")]
        case AwaitingProposal(), m.Proposal(name, digest):
            parameters = registration.find(name)
            # A security parameter never comes from a peer: the proposal only names what is registered here.
            if parameters is None or digest != registration.digest():
                raise RemoteProtocolError(f"parameters {name!r} are not what this site registered for the link")
            covered = talk.frame_cover(PadRole.PROPOSAL, frame)
            checking = CheckingProposal(registration, talk, parameters)
            return checking, [CheckTag(PadRole.PROPOSAL, covered, frame.tag)]
        case AwaitingReveal(_, _, parameters, detections), m.BasisReveal():
            if registration.reconciliation == "ldpc":
                job = Compute("sift", one_way.begin_finding, (detections, message, parameters))
                return Sifting(registration, talk, parameters, detections), [job]
            return DrawingPasses(registration, talk, parameters, detections, message), [Draw(32)]
        case AwaitingParities(_, _, parameters, asked, doubles), m.ParityReply():
            job = Compute("correct", jobs.advance, (asked, message))
            return Correcting(registration, talk, parameters, doubles), [job]
        case AwaitingSyndrome(_, _, parameters, wanted, doubles), m.Syndrome():
            job = Compute("correct", one_way.find, (wanted, message))
            return Correcting(registration, talk, parameters, doubles), [job]
        case AwaitingChallenge(_, _, parameters, block, doubles), m.VerificationChallenge(seed, tag):
            job = Compute("verify", verify, (block, seed, tag))
            return Verifying(registration, talk, parameters, block, doubles), [job]
        case AwaitingSeed(_, _, parameters, block, report), m.AmplificationSeed(length, seed):
            size = seed_size_bytes(len(block.bits), report.secret_key_length, registration.amplification)
            if length != report.secret_key_length or len(seed) != size:
                raise RemoteProtocolError(f"an amplification seed of {len(seed)} bytes for {length} bits")
            covered = state.talk.transcript_cover(PadRole.DECIDER, frame)
            checking_ = CheckingTranscript(registration, talk, parameters, block, report, seed)
            return checking_, [CheckTag(PadRole.DECIDER, covered, frame.tag)]
        case _:
            refuse(state, Received(frame))


def _computed(state: State, event: Event, result: object) -> Step:
    registration, talk = state.registration, state.talk
    match state, result:
        case Sifting(_, _, parameters, detections), (jobs.Asked() as asked, m.ReconciliationStart() as start):
            frame = talk.draft(start)
            sent = talk.with_sent(frame)
            return AwaitingParities(registration, sent, parameters, asked, detections.double_clicks), [Send(frame)]
        case Correcting(_, _, parameters, doubles), (jobs.Asked() as asked, m.ParityRequest() as request):
            frame = talk.draft(request)
            return AwaitingParities(registration, talk.with_sent(frame), parameters, asked, doubles), [Send(frame)]
        case Sifting(_, _, parameters, detections), (one_way.Wanted() as wanted, m.SyndromeRequest() as wish):
            frame = talk.draft(wish)
            sent = talk.with_sent(frame)
            return AwaitingSyndrome(registration, sent, parameters, wanted, detections.double_clicks), [Send(frame)]
        case Correcting(_, _, parameters, doubles), (one_way.Wanted() as wanted, m.MoreSyndrome() as more):
            frame = talk.draft(more)
            return AwaitingSyndrome(registration, talk.with_sent(frame), parameters, wanted, doubles), [Send(frame)]
        case Correcting(_, _, parameters, doubles), (jobs.Ended(block), m.ReconciliationEnd() as end):
            frame = talk.draft(end)
            return AwaitingChallenge(registration, talk.with_sent(frame), parameters, block, doubles), [Send(frame)]
        case Verifying(_, _, parameters, block, doubles), VerifiedBlock():
            rule = jobs.charging_rule(registration.reconciliation)
            job = Compute("judge", jobs.judge, (block, parameters, doubles, rule))
            return Judging(registration, talk, parameters, result), [job]
        case Judging(_, _, parameters, verified), BlockReport():
            frame = talk.draft(m.Verified())
            return AwaitingSeed(registration, talk.with_sent(frame), parameters, verified, result), [Send(frame)]
        case Amplifying(_, _, parameters, report), SecretKey():
            frame = talk.draft(m.ParticipantAccept(), tagged=True)
            covered = talk.transcript_cover(PadRole.PARTICIPANT, frame)
            named = replace(report, transcript_sha256=talk.digest(PadRole.PARTICIPANT, frame))
            tagging = TaggingTranscript(registration, talk, parameters, named, result, frame)
            return tagging, [Tag(PadRole.PARTICIPANT, covered)]
        case _:
            refuse(state, event)


def _answered(state: State, event: Event) -> Step:
    """Take what the module measured, or what the shell drew, tagged or checked."""
    registration, talk = state.registration, state.talk
    match state, event:
        case CheckingProposal(_, _, parameters), TagAccepted():
            frame = talk.draft(m.BlockAccepted())
            armed = Collecting(registration, talk.with_sent(frame), parameters)
            return armed, [Collect(parameters), Send(frame)]
        case Collecting(_, _, parameters), Clicked(detections):
            frame = talk.draft(jobs.close(detections), tagged=True)
            covered = talk.frame_cover(PadRole.CLOSURE, frame)
            tagging = TaggingClosure(registration, talk, parameters, detections, frame)
            return tagging, [Tag(PadRole.CLOSURE, covered)]
        case TaggingClosure(_, _, parameters, detections, frame), Tagged(_, tag):
            sealed = replace(frame, tag=tag)
            return AwaitingReveal(registration, talk.with_sent(sealed), parameters, detections), [Send(sealed)]
        case DrawingPasses(_, _, parameters, detections, reveal), Drawn(seed):
            job = Compute("sift", jobs.begin_correcting, (detections, reveal, seed, parameters))
            return Sifting(registration, talk, parameters, detections), [job]
        case CheckingTranscript(_, _, parameters, block, report, seed), TagAccepted():
            job = Compute("amplify", amplify, (block, seed, report.secret_key_length, registration.amplification))
            return Amplifying(registration, talk, parameters, report), [job]
        case TaggingTranscript(_, _, _, report, secret, frame), Tagged(_, tag):
            return _commit_locally(state, report, secret, replace(frame, tag=tag))
        case _:
            refuse(state, event)


def _commit_locally(state: State, report: BlockReport, secret: SecretKey, sealed: Frame) -> Step:
    talk = state.talk
    wire = sealed.wire()
    context = commitment.CommitContext(state.registration, talk.identity, talk.epoch, talk.block, len(secret.bits))
    record = CommittedLocal(talk.block, secret.bits, report, wire)
    return commitment.AwaitingDecision(context, wire), [Persist(record), Send(sealed)]
