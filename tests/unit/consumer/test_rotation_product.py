"""Every state of both rotation machines met with every event."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from rotation_pair import RotationPair, answer, initiator_states, key, key_id, standing

from heliograph.consumer import initiator, responder
from heliograph.consumer.keys import Proven, derive
from heliograph.consumer.messages import Commit, Confirm, Prepare, Ready, Refusal, RekeyRequest, Standing
from heliograph.consumer.rotation import (
    Activate,
    ControlDown,
    ControlUp,
    Drain,
    Drained,
    FetchKey,
    FetchKeyWithId,
    Install,
    KeyFetched,
    KeyRefused,
    LimitReached,
    NotTaken,
    Received,
    Reconnect,
    Retire,
    Send,
    Tick,
)
from heliograph.errors import RemoteProtocolError
from heliograph.types import DeliveredKey

INITIATOR_EVENTS = {
    "tick": Tick(61),
    "tick at the key's greatest age": Tick(400),
    "control up": ControlUp(),
    "control down": ControlDown(),
    "key fetched": KeyFetched(2, key(2)),
    "late key": KeyFetched(1, key(9)),
    "short key": KeyFetched(2, DeliveredKey(str(uuid.UUID(int=2)), bytes(16))),
    "key refused": KeyRefused(2, final=False),
    "late refusal": KeyRefused(1, final=False),
    "limit of 1": LimitReached(key_id(1)),
    "limit of 2": LimitReached(key_id(2)),
    "1 drained": Drained(key_id(1)),
    "1 not taken": NotTaken(key_id(1)),
    "2 not taken": NotTaken(key_id(2)),
    "ready": Received(answer(Ready, Proven.READY, 2, 1)),
    "forged ready": Received(answer(Ready, Proven.READY, 2, 1, forged=True)),
    "reflected prepare proof as ready": Received(answer(Ready, Proven.PREPARE, 2, 1)),
    "ready with another previous key": Received(answer(Ready, Proven.READY, 2, None)),
    "ready of an old rotation": Received(answer(Ready, Proven.READY, 1, None)),
    "confirm": Received(answer(Confirm, Proven.CONFIRM, 2, 1)),
    "forged confirm": Received(answer(Confirm, Proven.CONFIRM, 2, 1, forged=True)),
    "confirm of an old rotation": Received(answer(Confirm, Proven.CONFIRM, 1, None)),
    "refusal of 2": Received(Refusal(key_id(2), 2, "unknown key")),
    "refusal of 9": Received(Refusal(key_id(9), 2, "unknown key")),
    "rekey request of 1": Received(answer(RekeyRequest, Proven.REKEY_REQUEST, 1, None)),
    "forged rekey request of 1": Received(answer(RekeyRequest, Proven.REKEY_REQUEST, 1, None, forged=True)),
    "standing 1": Received(standing(1)),
    "standing nothing": Received(Standing()),
    "prepare": Received(answer(Prepare, Proven.PREPARE, 2, 1)),
    "commit": Received(answer(Commit, Proven.COMMIT, 2, 1)),
}
# What moves: (next state, actions). Everything else changes nothing or, below, is refused and changes nothing.
INITIATOR_MOVES = {
    ("Active", "tick"): ("Fetching", [FetchKey]),
    ("Active", "limit of 1"): ("Fetching", [FetchKey]),
    ("Active", "rekey request of 1"): ("Fetching", [FetchKey]),
    ("Active", "standing nothing"): ("Fetching", [FetchKey]),
    ("Idle", "control up"): ("Fetching", [FetchKey]),
    ("Fetching", "key fetched"): ("AwaitingReady", [Send]),
    ("Fetching", "short key"): ("Active", []),
    ("Fetching", "key refused"): ("Active", []),
    ("AwaitingReady", "ready"): ("AwaitingConfirm", [Install, Activate, Send]),
    ("AwaitingReady", "refusal of 2"): ("Active", []),
    ("AwaitingReady", "control up"): ("AwaitingReady", [Send]),
    ("AwaitingReady", "tick"): ("AwaitingReady", [Send]),
    ("AwaitingConfirm", "tick"): ("AwaitingConfirm", [Send]),
    ("AwaitingConfirm", "control up"): ("AwaitingConfirm", [Send]),
    ("AwaitingConfirm", "confirm"): ("Active", [Drain]),
    ("AwaitingConfirm", "limit of 2"): ("AwaitingConfirm", []),
    ("AwaitingConfirm", "2 not taken"): ("Active", [Activate, Retire]),
    # The peer lost both keys: its side of the old generation is gone.
    ("AwaitingConfirm", "standing nothing"): ("Fetching", [Retire, FetchKey]),
    # Fail closed: every key that is too old is forgotten, whatever is under way.
    ("Active", "tick at the key's greatest age"): ("Fetching", [Retire, FetchKey]),
    ("Fetching", "tick at the key's greatest age"): ("Idle", [Retire]),
    ("AwaitingReady", "tick at the key's greatest age"): ("Idle", [Retire, Reconnect]),
    ("AwaitingConfirm", "tick at the key's greatest age"): ("Fetching", [Retire, Retire, FetchKey]),
    # Only the time or the connection is noted.
    ("Idle", "tick"): ("Idle", []),
    ("Idle", "tick at the key's greatest age"): ("Idle", []),
    ("Fetching", "tick"): ("Fetching", []),
    ("Fetching", "control up"): ("Fetching", []),
    ("Active", "control up"): ("Active", []),
} | {(name, "control down"): (name, []) for name in ("Idle", "Fetching", "AwaitingReady", "AwaitingConfirm", "Active")}
INITIATOR_REFUSES = {
    ("AwaitingReady", "forged ready"),
    ("AwaitingReady", "reflected prepare proof as ready"),
    ("AwaitingReady", "ready with another previous key"),
    ("AwaitingConfirm", "forged confirm"),
    ("Active", "forged rekey request of 1"),
    ("Fetching", "forged rekey request of 1"),
    ("AwaitingReady", "forged rekey request of 1"),
} | {(n, e) for n in ("Idle", "Fetching", "AwaitingReady", "AwaitingConfirm", "Active") for e in ("prepare", "commit")}


def responder_states():
    pair = RotationPair()
    idle = pair.b.state
    pair.run(pair.a, ControlUp())
    active = pair.b.state
    fetching, _ = responder.step(active, Received(answer(Prepare, Proven.PREPARE, 2, 1)))
    commit, _ = responder.step(fetching, KeyFetched(2, key(2)))
    # The generation before key 1, key 8, is still accepted.
    older = replace(active.held.current, keys=derive(key(8)))
    held = replace(fetching.held, retiring=older, retire_by=90.0)
    retirement, _ = responder.step(replace(fetching, held=held), KeyFetched(2, key(2)))
    return {
        "Idle": idle,
        "Fetching": fetching,
        "AwaitingRetirement": retirement,
        "AwaitingCommit": commit,
        "Active": active,
    }


RESPONDER_EVENTS = {
    "tick": Tick(61),
    "tick at the overlap's end": Tick(95),
    "tick at the key's greatest age": Tick(400),
    "control up": ControlUp(),
    "control down": ControlDown(),
    "key fetched": KeyFetched(2, key(2)),
    "another key under its name": KeyFetched(2, DeliveredKey(str(uuid.UUID(int=2)), bytes(32))),
    "key under another name": KeyFetched(2, key(7)),
    "late key": KeyFetched(1, key(9)),
    "key unknown": KeyRefused(2, final=True),
    "key manager away": KeyRefused(2, final=False),
    "late refusal": KeyRefused(1, final=True),
    "limit of 1": LimitReached(key_id(1)),
    "limit of 9": LimitReached(key_id(9)),
    "8 drained": Drained(key_id(8)),
    "2 not taken": NotTaken(key_id(2)),
    "prepare of 2": Received(answer(Prepare, Proven.PREPARE, 2, 1)),
    "forged prepare of 2": Received(answer(Prepare, Proven.PREPARE, 2, 1, forged=True)),
    "prepare of 3": Received(answer(Prepare, Proven.PREPARE, 3, 1)),
    "prepare of 1 again": Received(answer(Prepare, Proven.PREPARE, 1, None)),
    "prepare with a used number": Received(Prepare(key_id(5), key_id(1), 1, bytes(32))),
    "commit of 2": Received(answer(Commit, Proven.COMMIT, 2, 1)),
    "forged commit of 2": Received(answer(Commit, Proven.COMMIT, 2, 1, forged=True)),
    "commit of 1 again": Received(answer(Commit, Proven.COMMIT, 1, None)),
    "ready": Received(answer(Ready, Proven.READY, 2, 1)),
    "confirm": Received(answer(Confirm, Proven.CONFIRM, 2, 1)),
    "refusal": Received(Refusal(key_id(2), 2, "unknown key")),
    "rekey request": Received(answer(RekeyRequest, Proven.REKEY_REQUEST, 1, None)),
    "standing": Received(standing(1)),
}
_FROM_THE_WRONG_SIDE = ("ready", "confirm", "refusal", "rekey request", "standing")
_RESPONDER_STATES = ("Idle", "Fetching", "AwaitingRetirement", "AwaitingCommit", "Active")
RESPONDER_MOVES = (
    {
        ("Idle", "prepare of 2"): ("Fetching", [FetchKeyWithId]),
        ("Idle", "forged prepare of 2"): ("Fetching", [FetchKeyWithId]),  # the proof needs the key
        ("Idle", "prepare of 3"): ("Fetching", [FetchKeyWithId]),
        ("Idle", "prepare of 1 again"): ("Fetching", [FetchKeyWithId]),
        ("Idle", "prepare with a used number"): ("Fetching", [FetchKeyWithId]),
        ("Active", "prepare of 2"): ("Fetching", [FetchKeyWithId]),
        ("Active", "forged prepare of 2"): ("Fetching", [FetchKeyWithId]),
        ("Active", "prepare of 3"): ("Fetching", [FetchKeyWithId]),
        ("Active", "commit of 1 again"): ("Active", [Send]),
        ("Active", "limit of 1"): ("Active", [Send]),
        ("Fetching", "key fetched"): ("AwaitingCommit", [Install, Send]),
        ("Fetching", "another key under its name"): ("Active", [Send]),
        ("Fetching", "key under another name"): ("Active", [Send]),
        ("Fetching", "key unknown"): ("Active", [Send]),
        ("Fetching", "key manager away"): ("Active", []),
        ("Fetching", "tick"): ("Active", []),
        ("Fetching", "tick at the overlap's end"): ("Active", []),
        ("AwaitingRetirement", "8 drained"): ("AwaitingCommit", [Retire, Install, Send]),
        ("AwaitingRetirement", "tick at the overlap's end"): ("AwaitingCommit", [Retire, Install, Send]),
        ("AwaitingCommit", "commit of 2"): ("Active", [Activate, Send, Drain]),
        ("AwaitingCommit", "prepare of 2"): ("AwaitingCommit", [Send]),
        ("AwaitingCommit", "prepare of 3"): ("Fetching", [FetchKeyWithId]),
        # Fail closed.
        ("Active", "tick at the key's greatest age"): ("Idle", [Retire]),
        ("Fetching", "tick at the key's greatest age"): ("Idle", [Retire]),
        ("AwaitingCommit", "tick at the key's greatest age"): ("Idle", [Retire, Retire]),
        ("AwaitingRetirement", "tick at the key's greatest age"): ("Idle", [Retire, Retire]),
        # Only the time is noted.
        ("Idle", "tick"): ("Idle", []),
        ("Idle", "tick at the overlap's end"): ("Idle", []),
        ("Idle", "tick at the key's greatest age"): ("Idle", []),
        ("Active", "tick"): ("Active", []),
        ("Active", "tick at the overlap's end"): ("Active", []),
        ("AwaitingCommit", "tick"): ("AwaitingCommit", []),
        ("AwaitingCommit", "tick at the overlap's end"): ("AwaitingCommit", []),
        ("AwaitingRetirement", "tick"): ("AwaitingRetirement", []),
    }
    | {(name, "control down"): (name, []) for name in _RESPONDER_STATES}
    | {(name, "control up"): (name, [Send]) for name in _RESPONDER_STATES}
)
RESPONDER_REFUSES = {
    ("AwaitingCommit", "forged prepare of 2"),
    ("AwaitingCommit", "forged commit of 2"),
} | {(name, event) for name in _RESPONDER_STATES for event in _FROM_THE_WRONG_SIDE}


def product():
    for module, states, events, moves, refuses in (
        (initiator, initiator_states(), INITIATOR_EVENTS, INITIATOR_MOVES, INITIATOR_REFUSES),
        (responder, responder_states(), RESPONDER_EVENTS, RESPONDER_MOVES, RESPONDER_REFUSES),
    ):
        role = module.__name__.rpartition(".")[2]
        for state in states:
            for event in events:
                yield pytest.param(
                    module,
                    states[state],
                    events[event],
                    moves.get((state, event)),
                    (state, event) in refuses,
                    id=f"{role}-{state}-{event}",
                )


@pytest.mark.parametrize(("module", "state", "event", "move", "refused"), list(product()))
def test_every_state_decides_every_event(module, state, event, move, refused):
    if refused:
        with pytest.raises(RemoteProtocolError):
            module.step(state, event)
        return
    after, actions = module.step(state, event)
    if move is None:
        assert (after, actions) == (state, [])
    else:
        assert (type(after).__name__, [type(action) for action in actions]) == move


def test_the_samples_cover_every_state():
    assert {type(s).__name__ for s in initiator_states().values()} == set(initiator_states())
    assert set(initiator_states()) == {s.__name__ for s in initiator.State.__args__}
    assert {type(s).__name__ for s in responder_states().values()} == set(responder_states())
    assert set(responder_states()) == {s.__name__ for s in responder.State.__args__}
