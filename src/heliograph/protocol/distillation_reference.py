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
from heliograph.protocol.actions import Computed, Draw, Drawn, Received, Start
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
class AwaitingConclusion(d.State):
    """This side has its key."""

    outcome: d.Outcome


def begin(run: d.Run) -> d.State:
    """Return the machine's first state."""
    return New(run, d.talk(run, Direction.TO_RECEIVER))


def step(state: d.State, event: d.Event) -> d.Step:
    """Take one event. Raises HeliographError, with nothing changed, where the run cannot go on."""
    match state, event:
        case New(), Start():
            check_size(len(state.run.bits), state.run.requirements)
            return AwaitingOpening(state.run, state.talk), ()
        case DrawingChallenge(), Drawn(data=seed):
            return d.work(state, "hash", _challenge, state, seed)
        case DrawingSeed(), Drawn(data=seed):
            so_far, send = d.say(state, m.AmplificationSeed(state.figures[2].secret_key_length, seed))
            amplifying = replace(state, talk=so_far)
            return d.work(amplifying, "amplify", _amplify, amplifying, seed, first=(send,))
        case d.Working(), Computed(result=d.Next() as after):
            return after.state, after.actions
        case d.State(), Received(frame=frame):
            return _received(state, frame, event)
    d.refuse(state, event)


def _received(state: d.State, frame: Frame, event: d.Event) -> d.Step:
    heard, message = d.listen(state, frame)
    run = state.run
    match state, message:
        case AwaitingOpening(), Opening():
            d.check_opening(run, message)
            so_far, send = d.say(AwaitingOpening(run, heard), d.opening(run))
            return AwaitingPasses(run, so_far), (send,)
        case AwaitingPasses(), PassesSeed():
            told = AwaitingPasses(run, heard)
            return d.work(told, "sample", _start, told, message)
        case Answering(), m.ParityRequest():
            reply = jobs.answer(state.answered, message.count, message.parities)
            so_far, send = d.say(Answering(run, heard, state.answered), reply)
            # The answer does not depend on what the peer said: that is taken in while the answer is under way.
            learning = Answering(run, so_far, state.answered)
            return d.work(learning, "learn", _learn, learning, first=(send,))
        case Answering(), m.ReconciliationEnd():
            ended = replace(state, talk=heard)
            return d.work(ended, "conclude", _conclude, ended, message)
        case one_way.AwaitingRequest(), m.SyndromeRequest():
            asked = replace(state, talk=heard)
            return d.work(asked, "syndrome", _syndrome, asked, message)
        case one_way.Sending(), m.MoreSyndrome():
            return one_way.send(replace(state, talk=heard), message)
        case one_way.Sending(), m.ReconciliationEnd():
            found = replace(state, talk=heard)
            return d.work(found, "conclude", _conclude, found, message)
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


def _start(state: AwaitingPasses, message: PassesSeed) -> d.Next:
    """Answer the sample; both sides start from the same estimate, and prepare their passes at once."""
    run = state.run
    ours = sample_parities(run.bits, message.seed, one_way=d.is_one_way(run))
    theirs = unpack_parities(message.parities, message.count)
    found = estimate(ours, theirs, len(run.bits), one_way=d.is_one_way(run))
    so_far, send = d.say(state, m.ParityReply(len(ours), ours.to_bytes()))
    before = Disclosed(parities_a=len(ours), parities_b=len(ours))
    if d.is_one_way(run):
        return d.Next(one_way.AwaitingRequest(run, so_far, found, before), (send,))
    told = AwaitingPasses(run, so_far)
    return d.Next(*d.work(told, "prepare", _prepare, told, message.seed, found.start, before, first=(send,)))


def _prepare(state: AwaitingPasses, seed: bytes, start: float, before: Disclosed) -> d.Next:
    run = state.run
    answerer = Answerer(run.bits, seed, start, d.limits(run))
    return d.Next(Answering(run, state.talk, jobs.Answered(d.sifted(run), answerer, before)), ())


def _learn(state: Answering) -> d.Next:
    state.answered.answerer.learn()
    return d.Next(state, ())


def _syndrome(state: one_way.AwaitingRequest, message: m.SyndromeRequest) -> d.Next:
    return d.Next(*one_way.begin(state, message))


def _conclude(state: Answering | one_way.Sending, message: m.ReconciliationEnd) -> d.Next:
    """Make this side's record from the peer's exact counts; only now the seed of the verification hash is drawn."""
    if isinstance(state, Answering):
        block = jobs.reference(state.answered, message)
    else:
        block = one_way.conclude(state, message)
    return d.Next(DrawingChallenge(state.run, state.talk, block), (Draw(SEED_BYTES),))


def _challenge(state: DrawingChallenge, seed: bytes) -> d.Next:
    challenge = m.VerificationChallenge(seed, verification_tag(state.block.bits, seed))
    so_far, send = d.say(state, challenge)
    return d.Next(AwaitingVerdict(state.run, so_far, state.block), (send,))


def _amplify(state: DrawingSeed, seed: bytes) -> d.Next:
    """Make the key, while the peer makes it too."""
    counts, disclosed, terms = state.figures
    key = amplify(state.block, seed, terms.secret_key_length, state.run.family)
    return d.Next(AwaitingConclusion(state.run, state.talk, d.Outcome(counts, disclosed, terms, key)), ())
