"""Bugs to plant: each takes one rule of security.md out of the real code, or out of the fake store."""

from __future__ import annotations

from dataclasses import replace

from commit_store import FakeStore
from planted_checks import message

from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.pads import PadRole
from heliograph.authentication.prefilter import FrameFilter
from heliograph.errors import AuthenticationFailed
from heliograph.postprocessing.reconciliation.answering import Answerer
from heliograph.postprocessing.reconciliation.correcting import Corrected
from heliograph.protocol import actions as a
from heliograph.protocol import commitment, conversation, handshake, transmitter
from heliograph.protocol import messages as m
from heliograph.protocol import records as r
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.conversation import LinkIdentity
from heliograph.protocol.frames import parse_frame
from heliograph.protocol.session import Session
from heliograph.storage.link_records import LinkRecords
from heliograph.types import Disclosed


# Planting.
def after_step(monkeypatch, machine, change):
    """Let ``change(state, event, take)`` replace a machine; ``take(event)`` is what it really does."""
    real = machine.step
    monkeypatch.setattr(
        machine, "step", lambda state, event: change(state, event, lambda instead: real(state, instead))
    )


def sends_first(kind):
    def plant(monkeypatch, machine):
        def change(_, event, take):
            after, actions = take(event)
            if any(isinstance(x, a.Persist) and isinstance(x.record, kind) for x in actions):
                actions = sorted(actions, key=lambda x: not isinstance(x, a.Send))
            return after, actions

        after_step(monkeypatch, machine, change)

    return plant


def plant_abort_without_answer(monkeypatch, _):
    def change(state, event, take):
        after, actions = take(event)
        forgetful = isinstance(state, commitment.TaggingAbort) and isinstance(after, commitment.Ended)
        return (commitment.Ended() if forgetful else after), actions

    after_step(monkeypatch, commitment, change)


def plant_abandonment_after_commit(monkeypatch, _):
    def change(state, event, take):
        given_up = isinstance(event, a.Received) and isinstance(decode(event.frame.body), m.BlockAbandoned)
        if isinstance(state, commitment.AwaitingDecision) and given_up:
            return commitment.Ended(), [a.Discard("the peer gave up", "Abandoned")]
        return take(event)

    after_step(monkeypatch, commitment, change)


def plant_impatient_participant(monkeypatch, _):
    def change(state, event, take):
        if isinstance(state, commitment.AwaitingDecision) and isinstance(event, a.Failed):
            return commitment.Ended(), [a.Discard("no decision came", "TimedOut")]
        return take(event)

    after_step(monkeypatch, commitment, change)


def plant_changed_mind(monkeypatch, _):
    def change(state, event, take):
        if isinstance(state, commitment.AwaitingAcknowledgement) and isinstance(event, a.Failed):
            wire = commitment.commit_frame(
                state.context,
                parse_frame(state.decision).direction,
                PadRole.DECISION,
                m.Decision(commit=False, refill_for=(), key_ids=b""),
            )
            sealed = replace(wire, tag=bytes(16))
            return commitment.Ended(sealed.wire()), [a.Discard("no answer came", "TimedOut")]
        return take(event)

    after_step(monkeypatch, commitment, change)


def plant_unchecked_decision(monkeypatch, _):
    def change(state, event, take):
        if isinstance(state, commitment.CheckingDecision) and isinstance(event, a.TagRefused):
            return take(a.TagAccepted(event.role))
        return take(event)

    after_step(monkeypatch, commitment, change)


def plant_unchecked_acknowledgement(monkeypatch, _):
    def change(state, event, take):
        if isinstance(state, commitment.CheckingAcknowledgement) and isinstance(event, a.TagRefused):
            return take(a.TagAccepted(event.role))
        return take(event)

    after_step(monkeypatch, commitment, change)


def plant_acknowledged_anew(monkeypatch, _):
    """Let a repeated decision be obeyed once more, with fresh key_IDs, instead of sending the stored answer."""

    def change(state, event, take):
        if isinstance(state, commitment.AwaitingSettlement) and isinstance(event, a.Received):
            said = decode(event.frame.body)
            if isinstance(said, m.Decision) and said.commit:
                frame = parse_frame(state.acknowledgement)
                other = m.Acknowledgement(commit=True, key_ids=bytes(reversed(message(frame.wire()).key_ids)))
                return state, [a.Send(replace(frame, body=encode(other), tag=b"another tag here"))]
        return take(event)

    after_step(monkeypatch, commitment, change)


def plant_forgetful_restart(monkeypatch, _):
    real = Session.resumed.__func__

    def resumed(cls, registration, *, stored, **rest):
        return real(cls, registration, stored=[s for s in stored if s.stage != "local"], **rest)

    monkeypatch.setattr(Session, "resumed", classmethod(resumed))


def plant_no_resumption(monkeypatch, _):
    monkeypatch.setattr(Session, "resumptions", lambda _: [])


def plant_deferred_closure_check(monkeypatch, _):
    real = transmitter._transition

    def transition(state, event):
        after, actions = real(state, event)
        if isinstance(after, transmitter.CheckingClosure) and isinstance(event, a.Received):
            return real(after, a.TagAccepted(PadRole.CLOSURE))
        return after, actions

    monkeypatch.setattr(transmitter, "_transition", transition)


def plant_retry_after_a_failed_tag(monkeypatch, _):
    real = transmitter._transition

    def transition(state, event):
        if isinstance(state, transmitter.CheckingClosure) and isinstance(event, a.TagRefused):
            talk = replace(state.talk, received=state.talk.received[:-1])
            return transmitter.AwaitingClosure(state.context, talk, state.pulses), []
        return real(state, event)

    monkeypatch.setattr(transmitter, "_transition", transition)


def plant_one_direction_covered(monkeypatch, _):
    real = conversation._framed
    monkeypatch.setattr(conversation, "_framed", lambda frames: real(()) if is_upward(frames) else real(frames))


def is_upward(frames):
    return bool(frames) and frames[0][2] == 1


def plant_bodies_only_covered(monkeypatch, _):
    real = conversation._framed

    def framed(frames):
        return real(tuple(replace(parse_frame(f), last_seen=0).wire() for f in frames))

    monkeypatch.setattr(conversation, "_framed", framed)


def plant_nameless_tags(monkeypatch, _):
    monkeypatch.setattr(LinkIdentity, "prefix", lambda _: b"")


def plant_pads_not_burnt(monkeypatch, _):
    def burn(self, address):
        with self._database.reading() as cursor:
            sealed = self._sealed(cursor, address)
        return self._unseal(sealed, address)

    monkeypatch.setattr(LinkRecords, "burn", burn)
    monkeypatch.setattr(LinkRecords, "erase_stored", lambda *_: None)
    monkeypatch.setattr(LinkRecords, "destroy_pad_set", lambda *_, **__: None)


def plant_attempts_in_memory(monkeypatch, _):
    def attempt(self, address):
        self.counts = getattr(self, "counts", {})
        self.counts[address] = self.counts.get(address, 0) + 1
        with self._database.reading() as cursor:
            return self._unseal(self._sealed(cursor, address), address), self.counts[address]

    monkeypatch.setattr(LinkRecords, "attempt", attempt)


def plant_attempts_after_the_comparison(monkeypatch, _):
    def check(*_):
        raise AuthenticationFailed("compared without counting")

    monkeypatch.setattr(Authenticator, "check", check)


def plant_believed_marks(monkeypatch, _):
    monkeypatch.setattr(handshake._Side, "_check_mac", lambda *_: None)


def plant_parities_b_forgotten(monkeypatch, _):
    monkeypatch.setattr(Answerer, "disclosed", property(lambda self: Disclosed(parities_a=self.parities)))
    real = Corrected.__init__

    def made(self, *arguments, **named):
        real(self, *arguments, **named)
        object.__setattr__(self, "disclosed", Disclosed(parities_a=self.disclosed.parities_a))

    monkeypatch.setattr(Corrected, "__init__", made)


def plant_no_prefilter(monkeypatch, _):
    monkeypatch.setattr(FrameFilter, "open", lambda _, sealed: sealed[:-16])


class ErasedBeforeStored(FakeStore):
    """Tags of commit messages spend their pad before the message is stored: a crash in between ends nothing."""

    def burn(self, site, block, role):
        return None if role in site.store(block).erased else self.erase(site, block, {role})


class ErasedWhenAccepted(FakeStore):
    """An accepted commit message spends its pad before what follows is stored."""

    def accepted(self, site, block, role):
        return self.erase(site, block, {role})


class DeliversAtDecision(FakeStore):
    def stored(self, before, record):
        after, used = super().stored(before, record)
        return (replace(after, deliverable=after.key_ids) if isinstance(record, r.DecidedCommit) else after), used


class DeliversUnsettled(FakeStore):
    def stored(self, before, record):
        after, used = super().stored(before, record)
        return (replace(after, deliverable=after.key_ids) if isinstance(record, r.ObeyedCommit) else after), used


class DestroysTheDecisionPad(FakeStore):
    """A discard takes the decision's pad too, though the decider's transcript tag may have left."""

    def discard(self, site, block):
        return self.erase(site, block, set(PadRole))

    def burn(self, site, block, role):
        if role is PadRole.DECIDER:
            site = self.erase(site, block, {PadRole.DECISION})
        return super().burn(site, block, role)
