"""The responder's rotation machine: it fetches the keys that the peer names. Every transition is in this file.

A message that is late, replayed or out of place changes nothing; one that lies, or that only a responder sends, is
refused with RemoteProtocolError and changes nothing either. A key is installed only after the peer proved to hold it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from heliograph.consumer.keys import Proven, TunnelKeys, derive, key_id_text, proof
from heliograph.consumer.messages import Commit, Confirm, Message, Prepare, Ready, Refusal, RekeyRequest, Standing
from heliograph.consumer.rotation import (
    Action,
    Activate,
    ControlDown,
    ControlUp,
    Drain,
    Drained,
    Event,
    FetchKeyWithId,
    Held,
    Install,
    Installed,
    KeyFetched,
    KeyRefused,
    LimitReached,
    NotTaken,
    Received,
    Retire,
    RotationLimits,
    Send,
    Tick,
    drop_aged,
    drop_drained,
)
from heliograph.errors import KeySupplyError, RemoteProtocolError
from heliograph.types import DeliveredKey

__all__ = ["Active", "AwaitingCommit", "AwaitingRetirement", "Fetching", "Idle", "State", "Step", "begin", "step"]


@dataclass(frozen=True, slots=True)
class Idle:
    """No key: nothing is sent or accepted."""

    held: Held


@dataclass(frozen=True, slots=True)
class Fetching:
    """The key manager is asked for the key that ``prepare`` names. ``candidate``: an earlier, uncommitted one."""

    held: Held
    prepare: Prepare
    deadline: float
    candidate: Installed | None = None


@dataclass(frozen=True, slots=True)
class AwaitingRetirement:
    """The new key is proved, but the generation before the current one is not retired yet: at most one overlap."""

    held: Held
    candidate: Installed


@dataclass(frozen=True, slots=True)
class AwaitingCommit:
    """The candidate is accepted from the peer; we still send under the current one."""

    held: Held
    candidate: Installed


@dataclass(frozen=True, slots=True)
class Active:
    """A key is in use on both ends and no rotation is under way."""

    held: Held


State = Idle | Fetching | AwaitingRetirement | AwaitingCommit | Active
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
            return replace(state, held=replace(state.held, control_up=True)), [Send(_standing(state.held.current))]
        case ControlDown():
            return replace(state, held=replace(state.held, control_up=False)), []
        case KeyFetched(attempt, key):
            if isinstance(state, Fetching) and attempt == state.held.attempts:
                return _on_key(state, key)
            return state, []  # the answer to a fetch we gave up: that key is never used
        case KeyRefused(attempt, final):
            if isinstance(state, Fetching) and attempt == state.held.attempts:
                # Not final: the key may still come to this key manager; the peer sends Prepare again.
                return _give_up(state), [_refusal(state.prepare, "unknown key")] if final else []
            return state, []
        case LimitReached(key_id):
            current = state.held.current
            if isinstance(state, Active) and current is not None and current.key_id == key_id:
                return _ask_for_rotation(state)
            return state, []
        case Drained(key_id):
            held, actions = drop_drained(state.held, key_id)
            return _go_on(replace(state, held=held), actions)
        case NotTaken():
            return state, []  # it was not said to be ready: the initiator gives it up
        case Received(message):
            return _on_message(state, message)


def _on_tick(state: State, now: float) -> Step:
    held, actions = drop_aged(state.held, now)
    state = replace(state, held=held)
    match state:
        case Fetching(_, _, deadline) if held.now >= deadline:
            return _give_up(state), actions
        case Fetching(_, _, _, Installed() as candidate) if _too_old(candidate, held):
            return replace(state, candidate=None), [*actions, Retire(candidate.key_id)]
        case AwaitingCommit(_, candidate) if _too_old(candidate, held):
            return _settled(held), [*actions, Retire(candidate.key_id)]
        case AwaitingRetirement(_, candidate) if _too_old(candidate, held):
            return _settled(held), actions
        case Active() if held.wanted and held.now >= held.next_at:
            asked, more = _ask_for_rotation(state)
            return asked, [*actions, *more]
        case _:
            return _go_on(state, actions)


def _too_old(candidate: Installed, held: Held) -> bool:
    return held.now - candidate.since >= held.limits.max_key_age_s


def _go_on(state: State, actions: list[Action]) -> Step:
    match state:
        case AwaitingRetirement(held, candidate) if held.retiring is None:
            return _install(held, candidate, actions)
        case Idle(held) | Active(held):
            return _settled(held), actions
        case _:
            return state, actions


def _settled(held: Held) -> Idle | Active:
    return Idle(held) if held.current is None else Active(held)


def _give_up(state: Fetching) -> State:
    return _settled(state.held) if state.candidate is None else AwaitingCommit(state.held, state.candidate)


def _ask_for_rotation(state: Active) -> Step:
    held, current = state.held, state.held.current
    assert current is not None
    offered = proof(current.keys, Proven.REKEY_REQUEST, current.previous, current.number)
    held = replace(held, wanted=True, next_at=held.now + held.limits.resend_seconds)
    return Active(held), [Send(RekeyRequest(current.key_id, current.number, offered))]


def _standing(current: Installed | None) -> Standing:
    if current is None:
        return Standing()
    offered = proof(current.keys, Proven.STANDING, None, current.number)
    return Standing(current.key_id, current.number, offered)


def _refusal(prepare: Prepare, reason: str) -> Send:
    if reason == "unknown key":
        return Send(Refusal(prepare.key_id, prepare.number, "unknown key"))
    return Send(Refusal(prepare.key_id, prepare.number, "wrong proof"))


def _ready(new: Installed) -> Send:
    return Send(Ready(new.key_id, new.number, proof(new.keys, Proven.READY, new.previous, new.number)))


def _confirm(new: Installed) -> Send:
    return Send(Confirm(new.key_id, new.number, proof(new.keys, Proven.CONFIRM, new.previous, new.number)))


def _on_message(state: State, message: Message) -> Step:
    match message:
        case Prepare():
            return _on_prepare(state, message)
        case Commit():
            return _on_commit(state, message)
        case Ready() | Confirm() | Refusal() | RekeyRequest() | Standing():
            raise RemoteProtocolError(
                f"{type(message).__name__} came to the responder, which alone sends it: both agents are set up as "
                "responder, or the message was reflected"
            )


def _on_prepare(state: State, prepare: Prepare) -> Step:
    held = state.held
    if isinstance(state, Fetching | AwaitingRetirement):
        return state, []  # one fetch at a time; the peer sends Prepare again
    if isinstance(state, AwaitingCommit) and state.candidate.key_id == prepare.key_id:
        state.candidate.check(Proven.PREPARE, prepare.number, prepare.proof)
        return state, [_ready(state.candidate)]
    if any(known is not None and known.key_id == prepare.key_id for known in (held.current, held.retiring)):
        return state, []
    if held.current is not None and prepare.previous is not None and prepare.number <= held.number:
        return state, []  # a replay: within the life of both processes the number only grows
    held = replace(held, attempts=held.attempts + 1)
    candidate = state.candidate if isinstance(state, AwaitingCommit) else None
    waiting = Fetching(held, prepare, held.now + held.limits.fetch_seconds, candidate)
    return waiting, [FetchKeyWithId(held.attempts, prepare.key_id)]


def _on_key(state: Fetching, key: DeliveredKey) -> Step:
    held, prepare = state.held, state.prepare
    try:
        # Check everything, then install: size, name, the peer's proof.
        keys = derive(key, held.limits.cipher)
        _check_name(keys, prepare)
        new = Installed(keys, held.now, prepare.number, prepare.previous)
        new.check(Proven.PREPARE, prepare.number, prepare.proof)
    except (KeySupplyError, RemoteProtocolError):
        return _give_up(state), [_refusal(prepare, "wrong proof")]
    # The peer proved a newer key, so it gave the earlier candidate up without using it.
    actions: list[Action] = [] if state.candidate is None else [Retire(state.candidate.key_id)]
    held = replace(held, number=max(held.number, prepare.number))
    return _go_on(AwaitingRetirement(held, new), actions)


def _check_name(keys: TunnelKeys, prepare: Prepare) -> None:
    if keys.key_id != prepare.key_id:
        raise KeySupplyError(f"asked for key {key_id_text(prepare.key_id)}, was given {key_id_text(keys.key_id)}")


def _install(held: Held, new: Installed, actions: list[Action]) -> Step:
    return AwaitingCommit(held, new), [*actions, Install(new.keys, new.since), _ready(new)]


def _on_commit(state: State, commit: Commit) -> Step:
    held = state.held
    current = held.current
    if isinstance(state, Active) and current and (current.key_id, current.number) == (commit.key_id, commit.number):
        current.check(Proven.COMMIT, commit.number, commit.proof)
        return state, [_confirm(current)]
    if not isinstance(state, AwaitingCommit):
        return state, []
    new = state.candidate
    if (new.key_id, new.number) != (commit.key_id, commit.number):
        return state, []
    new.check(Proven.COMMIT, commit.number, commit.proof)
    actions: list[Action] = [Activate(new.key_id), _confirm(new)]
    retire_by = math.inf
    if current is not None:
        actions.append(Drain(current.key_id))
        retire_by = held.now + held.limits.overlap_seconds
    completed = held.completed + 1
    held = replace(
        held, current=new, retiring=current, retire_by=retire_by, number=new.number, completed=completed, wanted=False
    )
    return Active(held), actions
