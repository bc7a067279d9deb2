"""The reference side of a run with recorded keys: it answers parities, challenges, and draws the seed.

Everything that decides a transition on this side is in this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from heliograph.postprocessing.amplification import amplify, seed_size_bytes
from heliograph.postprocessing.reconciliation.answering import Answerer
from heliograph.postprocessing.reconciliation.limits import unpack_parities
from heliograph.postprocessing.reconciliation.sampling import estimate, sample_parities
from heliograph.postprocessing.secrecy.recorded import RecordedTerms, ValueCounts, check_size
from heliograph.postprocessing.verification import SEED_BYTES, accept_verified, verification_tag
from heliograph.protocol import distillation as d
from heliograph.protocol import distillation_one_way as one_way
from heliograph.protocol import jobs
from heliograph.protocol import messages as m
from heliograph.protocol.actions import Continue, Draw, Drawn, Received, Start
from heliograph.protocol.distillation_messages import Concluded, Opening, PassesSeed
from heliograph.protocol.frames import Direction, Frame
from heliograph.types import Disclosed, ReconciledBlock, VerifiedBlock

__all__ = ["begin", "step"]


@dataclass(frozen=True, slots=True)
class New(d.State):
    """Not begun."""


@dataclass(frozen=True, slots=True)
class AwaitingOpening(d.State):
    """The peer speaks first."""


@dataclass(frozen=True, slots=True)
class AwaitingPasses(d.State):
    """Both sides were told the same."""


@dataclass(frozen=True, slots=True)
class Preparing(d.State):
    """The sample is answered; both sides prepare their passes. ``start``: the estimate they begin from."""

    seed: bytes = field(repr=False)
    start: float
    sampled: int


@dataclass(frozen=True, slots=True)
class Answering(d.State):
    """Ready for the next round of parities."""

    answered: jobs.Answered = field(repr=False)


@dataclass(frozen=True, slots=True)
class DrawingChallenge(d.State):
    """The last parity is out; only now the seed of the verification hash is drawn."""

    block: ReconciledBlock


@dataclass(frozen=True, slots=True)
class AwaitingVerdict(d.State):
    """The challenge is out."""

    block: ReconciledBlock


@dataclass(frozen=True, slots=True)
class DrawingSeed(d.State):
    """Reconciliation, verification and length are final; only now the amplification seed is drawn."""

    block: VerifiedBlock
    figures: tuple[ValueCounts, Disclosed, RecordedTerms]


@dataclass(frozen=True, slots=True)
class Amplifying(d.State):
    """The seed is out; the key is made while the peer makes it too."""

    block: VerifiedBlock
    figures: tuple[ValueCounts, Disclosed, RecordedTerms]
    seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AwaitingConclusion(d.State):
    """This side has its key."""

    outcome: d.Outcome


def begin(run: d.Run) -> d.State:
    """Return the machine's first state."""
    return New(run, d.talk(Direction.TO_RECEIVER))


def step(state: d.State, event: d.Event) -> tuple[d.State, tuple[d.Action, ...]]:
    """Take one event. Raises HeliographError, with nothing changed, where the run cannot go on."""
    match state, event:
        case New(), Start():
            check_size(len(state.run.bits), state.run.requirements)
            return AwaitingOpening(state.run, state.talk), ()
        case DrawingChallenge(), Drawn(data=seed):
            challenge = m.VerificationChallenge(seed, verification_tag(state.block.bits, seed))
            so_far, send = d.say(state, challenge)
            return AwaitingVerdict(state.run, so_far, state.block), (send,)
        case DrawingSeed(), Drawn(data=seed):
            so_far, send = d.say(state, m.AmplificationSeed(state.figures[2].secret_key_length, seed))
            return Amplifying(state.run, so_far, state.block, state.figures, seed), (send, Continue())
        case Amplifying(), Continue():
            counts, disclosed, terms = state.figures
            key = amplify(state.block, state.seed, terms.secret_key_length, state.run.family)
            return AwaitingConclusion(state.run, state.talk, d.Outcome(counts, disclosed, terms, key)), ()
        case Preparing(), Continue():
            return _prepare(state), ()
        case Answering(), Continue():
            state.answered.answerer.learn()
            return state, ()
        case d.State(), Received(frame=frame):
            return _received(state, frame, event)
    d.refuse(state, event)


def _received(state: d.State, frame: Frame, event: d.Event) -> tuple[d.State, tuple[d.Action, ...]]:
    heard, message = d.listen(state, frame)
    run = state.run
    match state, message:
        case AwaitingOpening(), Opening():
            d.check_opening(run, message)
            so_far, send = d.say(AwaitingOpening(run, heard), d.opening(run))
            return AwaitingPasses(run, so_far), (send,)
        case AwaitingPasses(), PassesSeed():
            return _start(AwaitingPasses(run, heard), message)
        case Answering(), m.ParityRequest():
            reply = jobs.answer(state.answered, message.count, message.parities)
            so_far, send = d.say(Answering(run, heard, state.answered), reply)
            return Answering(run, so_far, state.answered), (send, Continue())
        case Answering(), m.ReconciliationEnd():
            block = jobs.reference(state.answered, message)
            return DrawingChallenge(run, heard, block), (Draw(SEED_BYTES),)
        case one_way.AwaitingRequest(), m.SyndromeRequest():
            return one_way.begin(replace(state, talk=heard), message)
        case one_way.Sending(), m.MoreSyndrome():
            return one_way.send(replace(state, talk=heard), message)
        case one_way.Sending(), m.ReconciliationEnd():
            return DrawingChallenge(run, heard, one_way.conclude(state, message)), (Draw(SEED_BYTES),)
        case AwaitingVerdict(), m.Verified():
            verified = accept_verified(state.block)
            figures = d.outcome(run, state.block, verified.disclosed)
            size = seed_size_bytes(len(run.bits), figures[2].secret_key_length, run.family)
            return DrawingSeed(run, heard, verified, figures), (Draw(size),)
        case AwaitingConclusion(), Concluded():
            d.check_concluded(state.talk, message)
            so_far, send = d.say(AwaitingConclusion(run, heard, state.outcome), d.conclude(state.talk))
            return d.Finished(run, so_far, state.outcome), (send,)
    d.refuse(state, event)


def _start(state: AwaitingPasses, message: PassesSeed) -> tuple[d.State, tuple[d.Action, ...]]:
    """Answer the sample; both sides start from the same estimate."""
    run = state.run
    one_way_run = d.is_one_way(run)
    ours = sample_parities(run.bits, message.seed, one_way=one_way_run)
    found = estimate(ours, unpack_parities(message.parities, message.count), len(run.bits), one_way=one_way_run)
    if one_way_run:
        so_far, send = d.say(state, m.ParityReply(len(ours), ours.to_bytes()))
        before = Disclosed(parities_a=len(ours), parities_b=len(ours))
        return one_way.AwaitingRequest(run, so_far, found, before), (send,)
    so_far, send = d.say(state, m.ParityReply(len(ours), ours.to_bytes()))
    return Preparing(run, so_far, message.seed, found.start, len(ours)), (send, Continue())


def _prepare(state: Preparing) -> Answering:
    run, sampled = state.run, state.sampled
    answerer = Answerer(run.bits, state.seed, state.start, d.limits(run))
    before = Disclosed(parities_a=sampled, parities_b=sampled)
    return Answering(run, state.talk, jobs.Answered(d.sifted(run), answerer, before))
