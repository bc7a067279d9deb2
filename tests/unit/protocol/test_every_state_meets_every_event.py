"""Every (state, event) pair of the block machines is decided: a new state or message is red until it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from block_states import EVENT_NAMES, MESSAGES, STATE_NAMES, Samples, step

from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.protocol import actions as a
from heliograph.protocol.frames import Direction
from heliograph.protocol.session import Session

# What moves: (state, event) -> (next state, actions).
MOVES = {
    # The transmitter's site.
    ("tx Proposing", "Start"): ("TaggingProposal", "Tag"),
    ("tx TaggingProposal", "Tagged"): ("AwaitingAcceptance", "Send"),
    ("tx AwaitingAcceptance", "Received BlockAccepted"): ("Emitting", "Emit"),
    ("tx Emitting", "Emitted"): ("AwaitingClosure", ""),
    ("tx Emitting", "Received QuantumPhaseClosed"): ("Emitting", ""),  # kept until the light has left
    ("tx AwaitingClosure", "Received QuantumPhaseClosed"): ("CheckingClosure", "CheckTag"),
    ("tx CheckingClosure", "TagAccepted"): ("Revealing", "Compute"),
    ("tx CheckingClosure", "TagRefused"): ("Ended", "Send Discard"),
    ("tx Revealing", "Computed"): ("AwaitingReconciliation", "Send"),
    ("tx AwaitingReconciliation", "Received ReconciliationStart"): ("Sifting", "Compute"),
    ("tx Sifting", "Computed"): ("Answering", "Send"),
    ("tx Answering", "Received ParityRequest"): ("AnsweringRound", "Compute"),
    ("tx AnsweringRound", "Computed"): ("Answering", "Send"),
    ("tx Answering", "Received ReconciliationEnd"): ("Concluding", "Compute"),
    ("tx Sent", "Received MoreSyndrome"): ("SendingMore", "Compute"),
    ("tx Sent", "Received ReconciliationEnd"): ("Concluding", "Compute"),
    ("tx SendingMore", "Computed"): ("Sent", "Send"),
    ("tx Concluding", "Computed"): ("DrawingChallenge", "Draw"),
    ("tx DrawingChallenge", "Drawn"): ("Challenging", "Compute"),
    ("tx Challenging", "Computed"): ("AwaitingVerdict", "Send"),
    ("tx AwaitingVerdict", "Received Verified"): ("Judging", "Compute"),
    ("tx Judging", "Computed"): ("DrawingSeed", "Draw"),
    ("tx DrawingSeed", "Drawn"): ("Amplifying", "Compute"),
    ("tx Amplifying", "Computed"): ("TaggingTranscript", "Tag"),
    ("tx TaggingTranscript", "Tagged"): ("AwaitingParticipant", "Send"),
    ("tx AwaitingParticipant", "Received ParticipantAccept"): ("CheckingParticipant", "CheckTag"),
    ("tx AwaitingParticipant", "Received BlockAbandoned"): ("TaggingAbort", "Tag"),
    ("tx AwaitingParticipant", "Failed"): ("TaggingAbort", "Tag"),
    ("tx CheckingParticipant", "TagAccepted"): ("DrawingKeyIds", "Draw"),
    ("tx CheckingParticipant", "TagRefused"): ("TaggingAbort", "Tag"),
    ("tx DrawingKeyIds", "Drawn"): ("TaggingDecision", "Tag"),
    ("tx TaggingDecision", "Tagged"): ("AwaitingAcknowledgement", "Persist Send"),
    # The receiver's site.
    ("rx AwaitingProposal", "Received Proposal"): ("CheckingProposal", "CheckTag"),
    ("rx CheckingProposal", "TagAccepted"): ("Collecting", "Collect Send"),
    ("rx CheckingProposal", "TagRefused"): ("Ended", ""),  # no block began: its pads wait for the real proposal
    ("rx Collecting", "Clicked"): ("TaggingClosure", "Tag"),
    ("rx TaggingClosure", "Tagged"): ("AwaitingReveal", "Send"),
    ("rx AwaitingReveal", "Received BasisReveal"): ("DrawingPasses", "Draw"),
    ("rx DrawingPasses", "Drawn"): ("Sifting", "Compute"),
    ("rx Sifting", "Computed"): ("AwaitingParities", "Send"),
    ("rx AwaitingParities", "Received ParityReply"): ("Correcting", "Compute"),
    ("rx AwaitingSyndrome", "Received Syndrome"): ("Correcting", "Compute"),
    ("rx Correcting", "Computed"): ("AwaitingChallenge", "Send"),
    ("rx AwaitingChallenge", "Received VerificationChallenge"): ("Verifying", "Compute"),
    ("rx Verifying", "Computed"): ("Judging", "Compute"),
    ("rx Judging", "Computed"): ("AwaitingSeed", "Send"),
    ("rx AwaitingSeed", "Received AmplificationSeed"): ("CheckingTranscript", "CheckTag"),
    ("rx CheckingTranscript", "TagAccepted"): ("Amplifying", "Compute"),
    ("rx CheckingTranscript", "TagRefused"): ("Ended", "Send Discard"),
    ("rx Amplifying", "Computed"): ("TaggingTranscript", "Tag"),
    ("rx TaggingTranscript", "Tagged"): ("AwaitingDecision", "Persist Send"),
    # The commit protocol.
    ("commit TaggingAbort", "Tagged"): ("Ended", "Persist Send Discard"),
    ("commit TaggingAbort", "Failed"): ("Ended", ""),
    ("commit AwaitingAcknowledgement", "Received ParticipantAccept"): ("AwaitingAcknowledgement", "Send"),
    ("commit AwaitingAcknowledgement", "Received Acknowledgement"): ("CheckingAcknowledgement", "CheckTag"),
    ("commit CheckingAcknowledgement", "TagAccepted"): ("TaggingSettlement", "Tag"),
    ("commit CheckingAcknowledgement", "TagRefused"): ("AwaitingAcknowledgement", ""),
    ("commit TaggingSettlement", "Tagged"): ("Ended", "Persist Send Finish"),
    ("commit AwaitingDecision", "Received Decision"): ("CheckingDecision", "CheckTag"),
    ("commit CheckingDecision", "TagAccepted"): ("DrawingOwnKeyIds", "Draw"),
    ("commit CheckingDecision", "TagRefused"): ("AwaitingDecision", ""),
    ("commit DrawingOwnKeyIds", "Drawn"): ("TaggingAcknowledgement", "Tag"),
    ("commit TaggingAcknowledgement", "Tagged"): ("AwaitingSettlement", "Persist Send"),
    ("commit AwaitingSettlement", "Received Decision"): ("AwaitingSettlement", "Send"),
    ("commit AwaitingSettlement", "Received Settlement"): ("CheckingSettlement", "CheckTag"),
    ("commit CheckingSettlement", "TagAccepted"): ("Ended", "Persist Finish"),
    ("commit CheckingSettlement", "TagRefused"): ("AwaitingSettlement", ""),
    # A last word is repeated to whoever shows that it was not heard.
    ("commit Ended (aborted)", "Received ParticipantAccept"): ("Ended", "Send"),
    ("commit Ended (obeyed abort)", "Received Decision"): ("Ended", "Send"),
    ("commit Ended (settled)", "Received Acknowledgement"): ("Ended", "Send"),
}
# From T_D on the transmitter's site, and from COMMITTED_LOCAL on the receiver's, nobody gives up by himself.
NEVER_ALONE = {
    "tx AwaitingParticipant",
    "tx CheckingParticipant",
    "tx DrawingKeyIds",
    "tx TaggingDecision",
}


def expected(state, event):
    if (state, event) in MOVES:
        return MOVES[state, event]
    if state.startswith("commit Ended"):
        return "Ended", ""  # late answers of our own shell, and the peer's frames, change nothing
    gives_up = not state.startswith("commit") and state not in NEVER_ALONE
    if event == "Failed":
        return ("Ended", "Send Discard") if gives_up else (state.split()[1], "")
    if event == "Received BlockAbandoned" and gives_up:
        return "Ended", "Discard"
    return None


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return Samples(tmp_path_factory.mktemp("states"))


def test_the_table_knows_every_state_and_every_message(samples):
    assert set(samples.states) == STATE_NAMES
    assert set(samples.messages) == set(MESSAGES)
    assert {s for s, _ in MOVES} | {"commit Ended"} == STATE_NAMES
    assert {e for _, e in MOVES} <= set(EVENT_NAMES)


@pytest.mark.parametrize("state_name", sorted(STATE_NAMES))
def test_every_event_is_decided_in(samples, state_name):
    state = samples.states[state_name]
    for event_name in EVENT_NAMES:
        event = samples.event(state_name, event_name)
        outcome = expected(state_name, event_name)
        before = fingerprint(state)
        if outcome is None:
            refusal = RemoteProtocolError if isinstance(event, a.Received) else LocalProtocolError
            with pytest.raises(refusal):
                step(state, event)
            assert fingerprint(state) == before, event_name
            continue
        after, actions = step(state, event)
        assert (type(after).__name__, " ".join(type(x).__name__ for x in actions)) == outcome, event_name
        if type(after) is type(state) and not actions and event_name != "Received QuantumPhaseClosed":
            assert fingerprint(after) == before, event_name


def fingerprint(state):
    """Return the state as text, with the content of the reconciliation's opaque handles."""
    handles = [h for h in (getattr(state, n, None) for n in ("answered", "asked", "sent", "wanted")) if h is not None]
    inside = [getattr(h, n) for h in handles for n in ("answerer", "corrector", "source", "finder") if hasattr(h, n)]
    return repr(state), [repr(getattr(i, slot, None)) for i in inside for slot in type(i).__slots__]


def test_a_second_early_closure_is_refused(samples):
    state, _ = step(samples.states["tx Emitting"], samples.event("tx Emitting", "Received QuantumPhaseClosed"))
    with pytest.raises(RemoteProtocolError):
        step(state, samples.event("tx Emitting", "Received QuantumPhaseClosed"))


@pytest.mark.parametrize("state_name", sorted(n for n in STATE_NAMES if not n.startswith("commit")))
@pytest.mark.parametrize("twist", ["sequence", "last_seen", "epoch", "block", "direction"])
def test_no_frame_out_of_place_is_taken_by(samples, state_name, twist):
    """Whatever the message: a wrong place in the conversation is refused before it is looked at."""
    state = samples.states[state_name]
    for kind in MESSAGES:
        frame = samples.frame(state, samples.messages[kind])
        changes = {
            "sequence": {"sequence": frame.sequence + 1},
            "last_seen": {"last_seen": frame.last_seen + 1},
            "epoch": {"epoch": 2},
            "block": {"block": 2},
            "direction": {"direction": Direction(1 - frame.direction)},
        }
        with pytest.raises(RemoteProtocolError):
            step(state, a.Received(replace(frame, **changes[twist])))


def test_an_event_for_a_block_that_is_gone_is_dropped(samples):
    session = Session(samples.states["tx Proposing"].context.registration, True, 1, 5, {})  # noqa: FBT003
    for name in EVENT_NAMES:
        if not name.startswith("Received"):
            assert session.feed(3, samples.event("tx Proposing", name)) == (session, [])
