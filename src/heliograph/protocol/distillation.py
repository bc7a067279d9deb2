"""What the two machines for recorded keys share: run, talk, events, actions, outcome.

    B (corrects)                          A (reference)
    Opening                ->
                           <-             Opening
    PassesSeed             ->                                with parities of the sample, for a first estimate
                           <-             ParityReply        of the same sample: both estimate
    ParityRequest          ->
                           <-             ParityReply        until nothing is left to compare
    ReconciliationEnd      ->
                           <-             VerificationChallenge
    Verified               ->
                           <-             AmplificationSeed  both know the length by now
    Concluded              ->
                           <-             Concluded

Everything that decides a transition is in ``distillation_reference`` and ``distillation_correction``. Each machine is
``step(state, event) -> (state, actions)``. A step that raises has changed nothing, and the block ends there: whoever
drives the machine tells the peer so (``abandonment``) and gives nothing out. A recording may be cut into several
blocks, each with a machine of its own, several of them in flight. Heavy work leaves as a ``Compute`` whose result says
how the machine goes on (``Next``); where a frame can leave before it, it does, so that both sides work at once.

The channel is unauthenticated and the report says so (security.md 10). Frames, order and the digest at the end catch
damage of any kind: a key comes out on both sides, equal, or not at all.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from heliograph.bits import BitString
from heliograph.errors import BlockDiscarded, LocalProtocolError, RemoteProtocolError
from heliograph.postprocessing.amplification import DEFAULT_FAMILY, Family
from heliograph.postprocessing.reconciliation.charging import TwoWayRule, charged
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.secrecy.recorded import RecordedTerms, Requirements, ValueCounts, assess
from heliograph.postprocessing.verification import collision_bound
from heliograph.protocol import messages as m
from heliograph.protocol.actions import Compute, Computed, Draw, Drawn, Received, Send, Start
from heliograph.protocol.conversation import Conversation, LinkIdentity
from heliograph.protocol.distillation_messages import Concluded, DistillationMessage, Opening, decode, encode
from heliograph.protocol.frames import Direction, Frame
from heliograph.protocol.registration import Reconciliation
from heliograph.types import BlockId, Disclosed, IntensityCounts, ReconciledBlock, SecretKey, SiftedBlock

__all__ = [
    "TWO_WAY_RULE",
    "Action",
    "Event",
    "Finished",
    "Next",
    "Outcome",
    "PeerGaveUp",
    "Run",
    "State",
    "Step",
    "Working",
    "abandonment",
    "charging_rule",
    "check_concluded",
    "check_opening",
    "conclude",
    "is_one_way",
    "limits",
    "listen",
    "opening",
    "outcome",
    "refuse",
    "say",
    "sifted",
    "talk",
    "work",
]

# From the security rules: security.md 5 and 10, recorded keys are charged both ways.
TWO_WAY_RULE: TwoWayRule = "both"

_FIRST = BlockId(0)

Action = Send | Draw | Compute
Event = Start | Received | Drawn | Computed

_IDENTITY = LinkIdentity("recorded keys", "reference", "correction", b"")


class PeerGaveUp(BlockDiscarded):
    """The other side ended the run and said why."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one side holds of one block: its recorded bits, and what it was told. ``family``: of the hash."""

    bits: BitString
    requirements: Requirements
    reconciliation: Reconciliation = "cascade"
    family: Family = DEFAULT_FAMILY
    block: BlockId = _FIRST


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a side has in the end. Both hold the same, the key included."""

    counts: ValueCounts
    disclosed: Disclosed
    terms: RecordedTerms
    key: SecretKey


@dataclass(frozen=True, slots=True)
class State:
    """What every state of both machines holds."""

    run: Run
    talk: Conversation = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finished(State):
    """Both sides have seen the same exchange."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Working(State):
    """A job of this block is under way. The peer's next frame waits until it is done."""


@dataclass(frozen=True, slots=True)
class Next:
    """What a job returns: how the machine goes on."""

    state: State
    actions: tuple[Action, ...]


Step = tuple[State, tuple[Action, ...]]


def work(
    state: State, job: str, function: Callable[..., Next], *arguments: object, first: tuple[Action, ...] = ()
) -> Step:
    """Return the step that leaves ``function(*arguments)`` as a job, after the actions ``first``."""
    return Working(state.run, state.talk), (*first, Compute(job, function, arguments))


def talk(run: Run, direction: Direction) -> Conversation:
    """Return an empty conversation. A sends TO_RECEIVER, B sends TO_TRANSMITTER, as where bits are made by light."""
    return Conversation(_IDENTITY, 0, run.block, direction)


def say(state: State, message: DistillationMessage) -> tuple[Conversation, Send]:
    """Return the conversation with ``message`` in it, and the action that sends it."""
    so_far = state.talk
    frame = Frame(so_far.own, so_far.epoch, so_far.block, len(so_far.sent), len(so_far.received), encode(message))
    return so_far.with_sent(frame), Send(frame)


def listen(state: State, frame: Frame) -> tuple[Conversation, DistillationMessage]:
    """Return the conversation with the peer's frame in it, and its message.

    Raises RemoteProtocolError for anything out of turn or malformed, PeerGaveUp if that is what the peer says.
    """
    if frame.tagged or frame.tag:
        raise RemoteProtocolError("a tagged frame: nothing is authenticated between recorded keys")
    heard, message = state.talk.with_received(frame), decode(frame.body)
    if isinstance(message, m.BlockAbandoned):
        raise PeerGaveUp(f"the other side ended the run: {message.reason}")
    if frame.last_seen != len(state.talk.sent):  # the sides take turns, so a peer that goes on has seen everything
        raise RemoteProtocolError(f"the peer has seen {frame.last_seen} frames of the {len(state.talk.sent)} we sent")
    return heard, message


def refuse(state: State, event: Event) -> NoReturn:
    """Raise RemoteProtocolError for a peer's frame, LocalProtocolError for anything of our own; nothing changes."""
    if isinstance(event, Received):
        raise RemoteProtocolError(f"{type(decode(event.frame.body)).__name__} in {type(state).__name__}")
    raise LocalProtocolError(f"{type(event).__name__} in {type(state).__name__}")


def abandonment(state: State, reason: str) -> Frame:
    """Return the frame that tells the peer that this side ends the run."""
    _, send = say(state, m.BlockAbandoned(reason[:200]))
    return send.frame


def opening(run: Run) -> Opening:
    """Return what this side was told."""
    wanted = run.requirements
    counts = (wanted.sample.bits, wanted.sample.errors) if wanted.sample else (0, 0)
    return Opening(
        len(run.bits),
        wanted.eps_sec,
        wanted.eps_cor,
        wanted.strict,
        *counts,
        run.reconciliation,
        run.family,
        wanted.biased,
    )


def check_opening(run: Run, theirs: Opening) -> None:
    """Raise RemoteProtocolError unless both sides were told the same and hold as many bits.

    Also raises BlockDiscarded if verification cannot give eps_cor at this size.
    """
    ours = opening(run)
    if theirs.bits != ours.bits:
        raise RemoteProtocolError(f"{ours.bits} bits here, {theirs.bits} on the other side: not the same sifted key")
    if theirs != ours:
        raise RemoteProtocolError("the two sides were told different requirements")
    if collision_bound(len(run.bits)) > run.requirements.eps_cor:
        raise BlockDiscarded(f"{ours.bits} bits are too many to be verified within eps_cor {ours.eps_cor:g}")


def sifted(run: Run) -> SiftedBlock:
    """Return the bits as one block of a single intensity without test-basis counts: nothing else was recorded."""
    marks = np.broadcast_to(np.uint8(0), len(run.bits))
    return SiftedBlock(run.bits, marks, IntensityCounts((0,), (0,)))


def limits(run: Run) -> Limits:
    """Return the caps: charged both ways, more parities than half the bits leave no key (security.md 1)."""
    return Limits(parities=max(len(run.bits) // 2, 1024))


def is_one_way(run: Run) -> bool:
    """Return whether errors are found one way, by codes."""
    return run.reconciliation == "ldpc"


def charging_rule(reconciliation: Reconciliation) -> TwoWayRule:
    """Return what recorded keys are charged by: both directions, of which the one is almost silent in one-way runs."""
    return "one_way" if reconciliation == "ldpc" else TWO_WAY_RULE


def outcome(run: Run, block: ReconciledBlock, disclosed: Disclosed) -> tuple[ValueCounts, Disclosed, RecordedTerms]:
    """Return counts, ledger and terms of a verified block. Raises QBERTooHigh or BlockDiscarded if there is no key.

    Both sides call it on the same announced counts and the same ledger, so both come to the same length.
    """
    counts = ValueCounts(block.zeros, block.errors_given_0, block.ones, block.errors_given_1)
    return counts, disclosed, assess(counts, charged(disclosed, charging_rule(run.reconciliation)), run.requirements)


def _digest(so_far: Conversation) -> bytes:
    """Return SHA-256 over both directions, A's frames first, each with its length."""
    a, b = (so_far.sent, so_far.received) if so_far.own is Direction.TO_RECEIVER else (so_far.received, so_far.sent)
    digest = hashlib.sha256(_IDENTITY.prefix())
    for frames in (a, b):
        digest.update(len(frames).to_bytes(4, "big"))
        for frame in frames:
            digest.update(len(frame).to_bytes(4, "big") + frame)
    return digest.digest()


def conclude(so_far: Conversation) -> Concluded:
    """Return what this side says last; ``so_far`` holds everything before the first Concluded."""
    return Concluded(_digest(so_far))


def check_concluded(so_far: Conversation, theirs: Concluded) -> None:
    """Raise BlockDiscarded unless the peer saw the same exchange."""
    if not hmac.compare_digest(_digest(so_far), theirs.transcript):
        raise BlockDiscarded("the two sides saw different messages: the channel damaged some; run it again")
