"""One real instance of every state and every event of the block machines, taken from real blocks."""

from __future__ import annotations

import typing
from dataclasses import replace

import numpy as np

from heliograph.authentication.pads import PadRole
from heliograph.bits import BitString
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.one_way import Source
from heliograph.protocol import actions as a
from heliograph.protocol import commitment, receiver, transmitter, transmitter_states
from heliograph.protocol import messages as m
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.conversation import Conversation
from heliograph.protocol.frames import Direction, Frame, parse_frame
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair
from heliograph.types import BlockId

MESSAGES = typing.get_args(m.Message)
EVENTS = typing.get_args(a.Event)
COMMIT_STATES = typing.get_args(commitment.CommitState)
TAGGED = {
    m.Proposal: PadRole.PROPOSAL,
    m.QuantumPhaseClosed: PadRole.CLOSURE,
    m.AmplificationSeed: PadRole.DECIDER,
    m.ParticipantAccept: PadRole.PARTICIPANT,
    m.Decision: PadRole.DECISION,
    m.Acknowledgement: PadRole.ACKNOWLEDGEMENT,
    m.Settlement: PadRole.SETTLEMENT,
}


def leaves(kind):
    """Every state class below ``kind`` that stands for a state."""
    below = {leaf for child in kind.__subclasses__() for leaf in leaves(child)}
    return below or ({kind} if not kind.__name__.startswith("_") else set())


def name_of(machine, kind):
    return f"{machine} {kind.__name__}"


STATE_NAMES = (
    {name_of("tx", k) for k in leaves(transmitter_states.State)}
    | {name_of("rx", k) for k in leaves(receiver.State)}
    | {name_of("commit", k) for k in COMMIT_STATES}
    | {"commit Ended (settled)", "commit Ended (aborted)", "commit Ended (obeyed abort)"}
)


class Samples:
    """``states``: name -> a real state; ``own``: state name -> the events its own shell really gave it."""

    def __init__(self, directory):
        self.states, self.own, self.messages = {}, {}, {}
        pair = Pair(quick_registration(), quick_channel(), directory / "whole", prefilter=False)
        self._begin(pair)
        self._watch(pair)
        self._one_way(directory)
        context = commitment.CommitContext(
            pair.tx.registration,
            pair.tx.registration.identity(),
            1,
            BlockId(1),
            pair.tx.registration.parameters[0].secret_key_length,
        )
        self.states["commit TaggingAbort"], _ = commitment.abort(context)
        wire = commitment.commit_frame(
            context, Direction.TO_RECEIVER, PadRole.DECISION, m.Decision(commit=False, refill_for=(), key_ids=b"")
        )
        self.states["commit Ended (aborted)"] = commitment.Ended(replace(wire, tag=bytes(16)).wire())
        answer = commitment.commit_frame(
            context, Direction.TO_TRANSMITTER, PadRole.ACKNOWLEDGEMENT, m.Acknowledgement(commit=False, key_ids=b"")
        )
        self.states["commit Ended (obeyed abort)"] = commitment.Ended(replace(answer, tag=bytes(16)).wire())
        self.states["commit Ended (settled)"] = pair.tx.running.blocks[1]
        self.states["commit Ended"] = commitment.Ended()
        self.messages[m.BlockAbandoned] = m.BlockAbandoned("weather")

    def _begin(self, pair):
        registration = pair.tx.registration
        talk = Conversation(registration.identity(), 1, BlockId(1), Direction.TO_RECEIVER)
        context = transmitter_states.Context(registration, registration.parameters[0], (9,))
        self._note("tx", transmitter.propose(context, talk), a.Start())
        talk = replace(talk, own=Direction.TO_TRANSMITTER)
        self._note("rx", receiver.await_proposal(registration, talk), None)

    def _one_way(self, directory):
        """Watch a block reconciled one way; all its frames decode, so more of the syndrome is asked for by hand."""
        one_way = quick_registration(reconciliation="ldpc")
        pair = Pair(one_way, quick_channel(), directory / "one way", prefilter=False)
        before = {name: dict(events) for name, events in self.own.items()}
        self._watch(pair)
        self.own.update(before)
        sent = self.states["tx Sent"]
        named = bytes([128]) + bytes((sent.sent.source.disclosed.parities_b - 1) // 8)
        self.messages[m.MoreSyndrome] = m.MoreSyndrome(sent.sent.source.disclosed.parities_b, named)
        asked = a.Received(self.frame(sent, self.messages[m.MoreSyndrome]))
        sending, (job,) = transmitter.step(sent, asked)
        source = Source(sent.sent.sifted.bits, 0.001, Limits(parities=100_000))
        source.first()
        frames = source.disclosed.parities_b
        named = BitString.from_array(np.ones(frames, dtype=np.uint8))
        more = source.more(named)
        self._note("tx", sending, a.Computed(job.job, m.Syndrome(len(more), more.to_bytes())))

    def _watch(self, pair):
        pair.begin_block()
        while pair._todo:
            side, *rest = pair._todo[0]
            state = side.running.blocks.get(1)
            event = rest[1] if len(rest) == 2 else None
            if event is None:
                message = decode(parse_frame(rest[0]).body)
                self.messages.setdefault(type(message), message)
            if state is not None:
                self._note(side.name, state, event)
            pair.advance()

    def _note(self, side, state, event):
        name = name_of("commit" if isinstance(state, commitment.CommitState) else side, type(state))
        self.states.setdefault(name, state)
        if event is not None:
            self.own.setdefault(name, {})[type(event)] = event

    def event(self, state_name, event_name):
        """Return the event of that name, as the state could really meet it."""
        word = event_name.removeprefix("Received ")
        if word == event_name:
            return self.own.get(state_name, {}).get(getattr(a, word)) or OWN_EVENTS[word]
        kind = getattr(m, word)
        return a.Received(self.frame(self.states[state_name], self.messages[kind]))

    def frame(self, state, message):
        """Return the peer's next frame with this message, in order, so that only its kind decides."""
        tagged = type(message) in TAGGED
        talk = getattr(state, "talk", None)
        if talk is not None:
            peer = Direction(1 - talk.own)
            frame = Frame(peer, 1, 1, len(talk.received), len(talk.sent), encode(message), tagged)
        else:
            to_tx = isinstance(message, m.ParticipantAccept | m.Acknowledgement)
            role = int(TAGGED.get(type(message), 0))
            peer = Direction.TO_TRANSMITTER if to_tx else Direction.TO_RECEIVER
            frame = Frame(peer, 1, 1, role, 0, encode(message), tagged)
        return replace(frame, tag=bytes(16)) if tagged else frame


OWN_EVENTS = {
    "Start": a.Start(),
    "Tagged": a.Tagged(PadRole.DECISION, bytes(16)),
    "TagAccepted": a.TagAccepted(PadRole.DECISION),
    "TagRefused": a.TagRefused(PadRole.DECISION),
    "Drawn": a.Drawn(bytes(32)),
    "Computed": a.Computed("alien", object()),
    "Emitted": a.Emitted(None),
    "Clicked": a.Clicked(None),
    "Failed": a.Failed("TimedOut", "patience"),
}
EVENT_NAMES = [*(k.__name__ for k in EVENTS if k is not a.Received), *(f"Received {k.__name__}" for k in MESSAGES)]


def step(state, event):
    """Give the event to the machine the state belongs to, as the session does."""
    if isinstance(state, commitment.CommitState):
        return commitment.step(state, event)
    if isinstance(state, transmitter_states.State):
        return transmitter.step(state, event)
    return receiver.step(state, event)
