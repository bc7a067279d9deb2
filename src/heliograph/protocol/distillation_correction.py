"""The correcting side of a run with recorded keys: it asks for parities, corrects its bits, verifies, and follows.

Everything that decides a transition on this side is in this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from heliograph.bits import BitString
from heliograph.errors import QBERTooHigh, ReconciliationFailed, RemoteProtocolError
from heliograph.postprocessing.amplification import amplify, seed_size_bytes
from heliograph.postprocessing.reconciliation.correcting import Corrected, Corrector
from heliograph.postprocessing.reconciliation.limits import unpack_parities
from heliograph.postprocessing.reconciliation.outcome import error_report, reconciled_by_correcting
from heliograph.postprocessing.reconciliation.passes import SEED_BYTES
from heliograph.postprocessing.reconciliation.sampling import Estimate, estimate, sample_parities, sample_size
from heliograph.postprocessing.secrecy.recorded import check_size, is_hopeless
from heliograph.postprocessing.verification import verify
from heliograph.protocol import distillation as d
from heliograph.protocol import distillation_one_way as one_way
from heliograph.protocol import messages as m
from heliograph.protocol.actions import Computed, Draw, Drawn, Received, Start
from heliograph.protocol.conversation import Conversation
from heliograph.protocol.distillation_messages import Concluded, Opening, PassesSeed
from heliograph.protocol.frames import Direction, Frame
from heliograph.types import Disclosed, ReconciledBlock, VerifiedBlock

__all__ = ["begin", "step"]


@dataclass(frozen=True, slots=True)
class New(d.State):
    """Not begun."""


@dataclass(frozen=True, slots=True)
class AwaitingOpening(d.State):
    """This side has said what it was told."""


@dataclass(frozen=True, slots=True)
class DrawingPasses(d.State):
    """The public seed of the passes is being drawn."""


@dataclass(frozen=True, slots=True)
class AwaitingSample(d.State):
    """Our parities of the sample are out."""

    seed: bytes
    sample: BitString


@dataclass(frozen=True, slots=True)
class AwaitingParities(d.State):
    """A round of parities is asked for."""

    corrector: Corrector = field(repr=False)
    count: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class AwaitingChallenge(d.State):
    """Corrected; the peer draws the verification seed."""

    block: ReconciledBlock


@dataclass(frozen=True, slots=True)
class AwaitingSeed(d.State):
    """Verified; the peer draws the amplification seed."""

    block: ReconciledBlock
    verified: VerifiedBlock


@dataclass(frozen=True, slots=True)
class AwaitingConclusion(d.State):
    """This side has its key, and has said what it saw. ``seen``: the conversation before."""

    outcome: d.Outcome
    seen: Conversation = field(repr=False)


def begin(run: d.Run) -> d.State:
    """Return the machine's first state."""
    return New(run, d.talk(run, Direction.TO_TRANSMITTER))


def step(state: d.State, event: d.Event) -> d.Step:
    """Take one event. Raises HeliographError, with nothing changed, where the run cannot go on."""
    match state, event:
        case New(), Start():
            check_size(len(state.run.bits), state.run.requirements)
            so_far, send = d.say(state, d.opening(state.run))
            return AwaitingOpening(state.run, so_far), (send,)
        case DrawingPasses(), Drawn(data=seed):
            return d.work(state, "sample", _sample, state, seed)
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
            return DrawingPasses(run, heard), (Draw(SEED_BYTES),)
        case AwaitingSample(), m.ParityReply():
            after = replace(state, talk=heard)
            return d.work(after, "prepare", _start, after, message)
        case AwaitingParities(), m.ParityReply():
            correcting = replace(state, talk=heard)
            return d.work(correcting, "correct", _advance, correcting, message)
        case one_way.AwaitingSyndrome(), m.Syndrome():
            finding = replace(state, talk=heard)
            return d.work(finding, "correct", _find, finding, message)
        case AwaitingChallenge(), m.VerificationChallenge():
            challenged = replace(state, talk=heard)
            return d.work(challenged, "verify", _verify, challenged, message)
        case AwaitingSeed(), m.AmplificationSeed():
            seeded = replace(state, talk=heard)
            return d.work(seeded, "amplify", _amplify, seeded, message)
        case AwaitingConclusion(), Concluded():
            d.check_concluded(state.seen, message)
            return d.Finished(run, heard, state.outcome), ()
    d.refuse(state, event)


def _sample(state: DrawingPasses, seed: bytes) -> d.Next:
    """Say the seed of the passes, and our parities of the sample."""
    sample = sample_parities(state.run.bits, seed, one_way=d.is_one_way(state.run))
    so_far, send = d.say(state, PassesSeed(seed, len(sample), sample.to_bytes()))
    return d.Next(AwaitingSample(state.run, so_far, seed, sample), (send,))


def _start(state: AwaitingSample, reply: m.ParityReply) -> d.Next:
    """Estimate the error rate; ask for the first parities unless no key can come of it."""
    run = state.run
    expected = sample_size(len(run.bits), one_way=d.is_one_way(run))
    if reply.count != expected:
        raise RemoteProtocolError(f"{reply.count} parities where {expected} were due")
    theirs = unpack_parities(reply.parities, reply.count)
    found = estimate(state.sample, theirs, len(run.bits), one_way=d.is_one_way(run))
    if is_hopeless(found.rate_lower, run.requirements):
        raise QBERTooHigh(_too_many(found, f"a sample of {expected} parities shows it"))
    if d.is_one_way(run):
        return d.Next(*one_way.ask(state, found, expected))
    corrector = Corrector(run.bits, state.seed, found.start, d.limits(run))
    first = corrector.first_parities()
    so_far, send = d.say(state, m.ParityRequest(len(first), first.to_bytes()))
    return d.Next(AwaitingParities(run, so_far, corrector, len(first), found), (send,))


def _advance(state: AwaitingParities, reply: m.ParityReply) -> d.Next:
    """Correct with one round's parities; ask for more, or announce the exact error counts."""
    run = state.run
    if reply.count != state.count:
        raise RemoteProtocolError(f"{reply.count} parities where {state.count} were due")
    try:
        result = state.corrector.advance(unpack_parities(reply.parities, reply.count))
    except ReconciliationFailed as why:
        raise QBERTooHigh(_too_many(state.estimate, str(why))) from None
    if not isinstance(result, Corrected):
        so_far, send = d.say(state, m.ParityRequest(len(result), result.to_bytes()))
        return d.Next(AwaitingParities(run, so_far, state.corrector, len(result), state.estimate), (send,))
    sampled = sample_size(len(run.bits))
    everything = replace(result, disclosed=result.disclosed + Disclosed(parities_a=sampled, parities_b=sampled))
    block = reconciled_by_correcting(d.sifted(run), everything)
    report = error_report(block)
    so_far, send = d.say(
        state,
        m.ReconciliationEnd(
            report.key_errors,
            report.zeros,
            report.errors_given_0,
            report.ones,
            report.errors_given_1,
            report.disclosed.parities_a,
            report.disclosed.parities_b,
        ),
    )
    return d.Next(AwaitingChallenge(run, so_far, block), (send,))


def _find(state: one_way.AwaitingSyndrome, message: m.Syndrome) -> d.Next:
    """Look for the errors with a syndrome; ask for more of it, or announce the exact error counts."""
    result, reply = one_way.take(state, message)
    so_far, send = d.say(state, reply)
    if isinstance(result, one_way.AwaitingSyndrome):
        return d.Next(replace(result, talk=so_far), (send,))
    return d.Next(AwaitingChallenge(state.run, so_far, result), (send,))


def _verify(state: AwaitingChallenge, message: m.VerificationChallenge) -> d.Next:
    """Compare the hash of the whole corrected block."""
    verified = verify(state.block, message.seed, message.tag)
    so_far, send = d.say(state, m.Verified())
    return d.Next(AwaitingSeed(state.run, so_far, state.block, verified), (send,))


def _amplify(state: AwaitingSeed, message: m.AmplificationSeed) -> d.Next:
    """Compute the length from what was announced; the peer's is only compared (security.md 5)."""
    run = state.run
    counts, disclosed, terms = d.outcome(run, state.block, state.verified.disclosed)
    if message.length != terms.secret_key_length:
        raise RemoteProtocolError(f"the peer amplifies to {message.length} bits, this side {terms.secret_key_length}")
    if len(message.seed) != seed_size_bytes(len(run.bits), terms.secret_key_length, run.family):
        raise RemoteProtocolError(f"an amplification seed of {len(message.seed)} bytes came for {len(run.bits)} bits")
    key = amplify(state.verified, message.seed, terms.secret_key_length, run.family)
    so_far, send = d.say(state, d.conclude(state.talk))
    return d.Next(AwaitingConclusion(run, so_far, d.Outcome(counts, disclosed, terms, key), state.talk), (send,))


def _too_many(found: Estimate, why: str) -> str:
    """Return the line for an error rate beyond any key."""
    about = f"no secret key: about {found.rate:.0%} of the bits differ ({why})"
    if found.rate_lower >= 0.5:
        return f"{about}; one side seems to have its bit values inverted"
    return f"{about}; more than any key allows: check that both files are of the same run, in the same order"
