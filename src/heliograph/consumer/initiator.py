"""The initiator's rotation machine: it fetches fresh keys and decides when. Every transition is in this file.

A message that is late or out of place changes nothing; one that lies, or that only an initiator sends, is refused with
RemoteProtocolError and changes nothing either. No answer of a peer makes this side use a key that the peer has not
proved to hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from heliograph.consumer.keys import Proven, check_proof, derive, key_id_text, proof
from heliograph.consumer.messages import Commit, Confirm, Message, Prepare, Ready, Refusal, RekeyRequest, Standing
from heliograph.consumer.rotation import (
    Action,
    Activate,
    ControlDown,
    ControlUp,
    Drain,
    Drained,
    Event,
    FetchKey,
    Held,
    Install,
    Installed,
    KeyFetched,
    KeyRefused,
    LimitReached,
    NotTaken,
    Received,
    Reconnect,
    Retire,
    RotationLimits,
    Send,
    Tick,
    drop_aged,
    drop_drained,
)
from heliograph.errors import KeySupplyError, RemoteProtocolError
from heliograph.types import DeliveredKey

__all__ = ["Active", "AwaitingConfirm", "AwaitingReady", "Fetching", "Idle", "State", "Step", "begin", "step"]


@dataclass(frozen=True, slots=True)
class Idle:
    """No key: nothing is sent or accepted. The next rotation starts as soon as it may."""

    held: Held


@dataclass(frozen=True, slots=True)
class Fetching:
    """The key manager is asked for a fresh key; the current one, if any, goes on."""

    held: Held
    began: float
    deadline: float


@dataclass(frozen=True, slots=True)
class AwaitingReady:
    """Prepare is sent; the candidate is not in use yet."""

    held: Held
    candidate: Installed
    resend_at: float
    deadline: float


@dataclass(frozen=True, slots=True)
class AwaitingConfirm:
    """We send under the new key; the peer may still send under the old one."""

    held: Held
    resend_at: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Active:
    """A key is in use on both ends and no rotation is under way."""

    held: Held


State = Idle | Fetching | AwaitingReady | AwaitingConfirm | Active
Step = tuple[State, list[Action]]


def begin(limits: RotationLimits, now: float) -> State:
    """Return the state of an agent that just started: no generation is ever resumed."""
    return Idle(Held(limits, now))


def step(state: State, event: Event) -> Step:
    """Return the next state and what to do. Raises RemoteProtocolError, and nothing happened."""
    match event:
        case Tick(now):
            return _on_tick(state, now)
        case ControlUp():
            return _on_control_up(state)
        case ControlDown():
            return replace(state, held=replace(state.held, control_up=False)), []
        case KeyFetched(attempt, key):
            if isinstance(state, Fetching) and attempt == state.held.attempts:
                return _prepare(state, key)
            return state, []  # the answer to a fetch we gave up: that key is never used
        case KeyRefused(attempt, _):
            if isinstance(state, Fetching) and attempt == state.held.attempts:
                return _failed(state.held)
            return state, []
        case LimitReached(key_id):
            current = state.held.current
            if current is not None and current.key_id == key_id:
                return _want(state)
            return state, []
        case Drained(key_id):
            if isinstance(state, AwaitingConfirm):
                return state, []  # the peer may still open connections under the old key
            held, actions = drop_drained(state.held, key_id)
            return _go_on(replace(state, held=held), actions)
        case NotTaken(key_id):
            return _on_not_taken(state, key_id)
        case Received(message):
            return _on_message(state, message)


def _on_tick(state: State, now: float) -> Step:
    held, actions = drop_aged(state.held, now)
    state = replace(state, held=held)
    match state:
        case Idle() | Active():
            return _go_on(state, actions)
        case Fetching(_, _, deadline) if held.now >= deadline:
            state, more = _failed(held)
            return state, [*actions, *more]
        case AwaitingReady(_, _, _, deadline) if held.now >= deadline:
            # The peer is silent: this key is given up unused, the connection is suspect.
            state, more = _failed(held)
            return state, [*actions, Reconnect(), *more]
        case AwaitingConfirm() if held.current is None:
            return _go_on(Idle(replace(held, wanted=False)), actions)
        case AwaitingConfirm(_, _, deadline) if held.now >= deadline:
            return replace(state, deadline=held.now + held.limits.answer_seconds), [*actions, Reconnect()]
        case AwaitingReady(_, _, resend_at, _) | AwaitingConfirm(_, resend_at, _) if held.now >= resend_at:
            return _resend(state, actions)
        case _:
            return state, actions


def _on_control_up(state: State) -> Step:
    state = replace(state, held=replace(state.held, control_up=True))
    match state:
        case AwaitingReady() | AwaitingConfirm():
            return _resend(state, [])
        case _:
            return _go_on(state, [])


def _resend(state: AwaitingReady | AwaitingConfirm, actions: list[Action]) -> Step:
    again = state.held.now + state.held.limits.resend_seconds
    match state:
        case AwaitingReady(held, candidate):
            message: Message = _prepare_message(candidate)
        case AwaitingConfirm(held):
            assert held.current is not None
            message = _commit_message(held.current)
    sent: list[Action] = [Send(message)] if held.control_up else []
    return replace(state, resend_at=again), actions + sent


def _go_on(state: State, actions: list[Action]) -> Step:
    """From a settled state, start the next rotation if it is due and may start."""
    if not isinstance(state, Idle | Active):
        return state, actions
    held, current = state.held, state.held.current
    due = held.wanted or current is None or held.now - current.since >= held.limits.rekey_seconds
    # At most one generation of overlap; no key is fetched that could not be named to the peer.
    if due and held.control_up and held.retiring is None and held.now >= held.next_at:
        held = replace(held, attempts=held.attempts + 1)
        return Fetching(held, held.now, held.now + held.limits.fetch_seconds), [*actions, FetchKey(held.attempts)]
    return _settled(held), actions


def _settled(held: Held) -> Idle | Active:
    return Idle(held) if held.current is None else Active(held)


def _failed(held: Held) -> Step:
    """Give this rotation up; the current key, if any, goes on. Wait longer each time."""
    pause = min(held.limits.retry_max_seconds, held.limits.retry_seconds * 2.0 ** min(held.failures, 32))
    return _settled(replace(held, failures=held.failures + 1, next_at=held.now + pause)), []


def _on_not_taken(state: State, key_id: bytes) -> Step:
    """Go back to the generation before: the peer was never told to change, so it still sends under that one."""
    held = state.held
    if not isinstance(state, AwaitingConfirm) or held.current is None or held.current.key_id != key_id:
        return state, []
    old = held.retiring
    state, _ = _failed(replace(held, current=old, retiring=None, retire_by=math.inf))
    back: list[Action] = [Activate(old.key_id)] if old else []
    return state, [*back, Retire(key_id)]


def _want(state: State) -> Step:
    match state:
        case Idle() | Active() | AwaitingConfirm():
            return _go_on(replace(state, held=replace(state.held, wanted=True)), [])
        case _:
            return state, []  # a rotation is under way already


def _prepare(state: Fetching, key: DeliveredKey) -> Step:
    held = state.held
    try:
        keys = derive(key, held.limits.cipher)
    except KeySupplyError:
        return _failed(held)
    number = held.number + 1
    previous = held.current.key_id if held.current else None
    # Its age counts from when it was asked for: the key manager gave it later, a key establishment much later.
    candidate = Installed(keys, state.began, number, previous)
    held = replace(held, number=number)
    waiting = AwaitingReady(held, candidate, held.now, held.now + held.limits.answer_seconds)
    return _resend(waiting, [])


def _prepare_message(new: Installed) -> Prepare:
    return Prepare(new.key_id, new.previous, new.number, proof(new.keys, Proven.PREPARE, new.previous, new.number))


def _commit_message(new: Installed) -> Commit:
    return Commit(new.key_id, new.number, proof(new.keys, Proven.COMMIT, new.previous, new.number))


def _on_message(state: State, message: Message) -> Step:
    match message:
        case Ready():
            return _on_ready(state, message)
        case Confirm():
            return _on_confirm(state, message)
        case Refusal(key_id, number):
            if isinstance(state, AwaitingReady) and _names(state.candidate, key_id, number):
                return _failed(state.held)
            return state, []
        case RekeyRequest(key_id, number, offered):
            current = state.held.current
            if current is None or not _names(current, key_id, number):
                return state, []
            current.check(Proven.REKEY_REQUEST, number, offered)
            return _want(state)
        case Standing():
            return _on_standing(state, message)
        case Prepare() | Commit():
            raise RemoteProtocolError(
                f"{type(message).__name__} for key {key_id_text(message.key_id)} came to the initiator, which alone "
                "sends it: both agents are set up as initiator, or the message was reflected"
            )


def _on_ready(state: State, message: Ready) -> Step:
    if not isinstance(state, AwaitingReady) or not _names(state.candidate, message.key_id, message.number):
        return state, []
    new = state.candidate
    new.check(Proven.READY, message.number, message.proof)
    held = state.held
    if held.now - new.since >= held.limits.max_key_age_s:
        return state, []  # too old before it was ever used: it is given up like one that nobody answered
    # The old generation stays until Confirm, however long: the peer sends under it until it sees our Commit.
    held = replace(held, retiring=held.current, retire_by=math.inf, current=new, wanted=False, failures=0)
    waiting = AwaitingConfirm(held, held.now, held.now + held.limits.answer_seconds)
    return _resend(waiting, [Install(new.keys, new.since), Activate(new.key_id)])


def _on_confirm(state: State, message: Confirm) -> Step:
    held = state.held
    if not isinstance(state, AwaitingConfirm) or held.current is None:
        return state, []
    if not _names(held.current, message.key_id, message.number):
        return state, []
    held.current.check(Proven.CONFIRM, message.number, message.proof)
    actions: list[Action] = []
    if held.retiring is not None:
        actions.append(Drain(held.retiring.key_id))
    held = replace(held, completed=held.completed + 1, retire_by=held.now + held.limits.overlap_seconds)
    return _go_on(Active(held), actions)


def _on_standing(state: State, message: Standing) -> Step:
    """Take the peer's word on what it sends under, after each reconnection; a lie costs one fresh key."""
    held = state.held
    if not isinstance(state, Active | AwaitingConfirm) or held.current is None:
        return state, []
    for known in (held.current, held.retiring):
        if known is None or message.key_id != known.key_id or message.number is None or message.proof is None:
            continue
        check_proof(known.keys, Proven.STANDING, None, message.number, message.proof)
        if known is held.current or isinstance(state, AwaitingConfirm):
            return state, []
    # The peer lost our generation (it restarted, or its key grew too old): it cannot send under any of ours.
    actions: list[Action] = [Retire(held.retiring.key_id)] if held.retiring else []
    return _go_on(Active(replace(held, retiring=None, retire_by=math.inf, wanted=True)), actions)


def _names(installed: Installed, key_id: bytes, number: int) -> bool:
    return installed.key_id == key_id and installed.number == number
