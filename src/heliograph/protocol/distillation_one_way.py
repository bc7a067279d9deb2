"""Recorded keys reconciled one way: what takes the place of the rounds of parities in ``distillation``.

    B (corrects)                          A (reference)
    SyndromeRequest        ->                                after the sample, from which both know the code
                           <-             Syndrome
    MoreSyndrome           ->                                only if some frames did not decode, a few times
                           <-             Syndrome
    ReconciliationEnd      ->

The transitions are in ``distillation_reference`` and ``distillation_correction``, as those of all other messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from heliograph.errors import QBERTooHigh, ReconciliationFailed, RemoteProtocolError
from heliograph.postprocessing.reconciliation.one_way import Finder, Source
from heliograph.postprocessing.reconciliation.sampling import Estimate
from heliograph.protocol import distillation as d
from heliograph.protocol import jobs, one_way
from heliograph.protocol import messages as m
from heliograph.types import Disclosed, ReconciledBlock

__all__ = ["AwaitingRequest", "AwaitingSyndrome", "Sending", "ask", "begin", "conclude", "send", "take"]

# Our choice: one run in six then asks for more, which is a fourteenth of the syndrome; each deviation more costs half
# as much in every run.
_DEVIATIONS = 1.0


@dataclass(frozen=True, slots=True)
class AwaitingRequest(d.State):
    """A: the sample is answered; the peer asks for the syndrome, if it thinks that a key can come of it."""

    estimate: Estimate
    before: Disclosed


@dataclass(frozen=True, slots=True)
class Sending(d.State):
    """A: the syndrome is out."""

    sent: one_way.Sent = field(repr=False)


@dataclass(frozen=True, slots=True)
class AwaitingSyndrome(d.State):
    """B: the syndrome is asked for."""

    wanted: one_way.Wanted = field(repr=False)


def _rate(found: Estimate) -> float:
    return found.rate + _DEVIATIONS * (found.rate - found.start)


def begin(state: AwaitingRequest, message: m.SyndromeRequest) -> tuple[d.State, tuple[d.Action, ...]]:
    """Make and send the syndrome."""
    if message.test_detections or message.test_bits:
        raise RemoteProtocolError("test bits came between recorded keys, where there are none")
    source = Source(state.run.bits, _rate(state.estimate), d.limits(state.run))
    syndrome = source.first()
    sent = one_way.Sent(d.sifted(state.run), source, state.before)
    so_far, action = d.say(state, m.Syndrome(len(syndrome), syndrome.to_bytes()))
    return Sending(state.run, so_far, sent), (action,)


def send(state: Sending, message: m.MoreSyndrome) -> tuple[d.State, tuple[d.Action, ...]]:
    """Send the rest for the frames named."""
    so_far, action = d.say(state, one_way.send_more(state.sent, message))
    return Sending(state.run, so_far, state.sent), (action,)


def conclude(state: Sending, message: m.ReconciliationEnd) -> ReconciledBlock:
    """Return A's record."""
    return one_way.reference(state.sent, message)


def ask(state: d.State, found: Estimate, sampled: int) -> tuple[d.State, tuple[d.Action, ...]]:
    """Ask for the syndrome. Raises QBERTooHigh where no code corrects so many errors."""
    run = state.run
    try:
        finder = Finder(run.bits, _rate(found), d.limits(run))
    except ReconciliationFailed as why:
        raise QBERTooHigh(f"no secret key: about {found.rate:.0%} of the bits differ ({why})") from None
    wanted = one_way.Wanted(d.sifted(run), finder, Disclosed(parities_a=sampled, parities_b=sampled))
    so_far, action = d.say(state, m.SyndromeRequest(0, b""))
    return AwaitingSyndrome(run, so_far, wanted), (action,)


def take(
    state: AwaitingSyndrome, message: m.Syndrome
) -> tuple[AwaitingSyndrome | ReconciledBlock, m.MoreSyndrome | m.ReconciliationEnd]:
    """Look for the errors; return B's record and its counts, or what to ask for. Nothing is said yet."""
    result, reply = one_way.find(state.wanted, message)
    return (result.block if isinstance(result, jobs.Ended) else replace(state, wanted=result)), reply
