"""The two rotation machines: every state met with every event, and scenarios of loss, lies and empty key managers."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from heliograph.consumer import initiator, responder
from heliograph.consumer.keys import Proven, derive, proof
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
    Received,
    Reconnect,
    Retire,
    RotationLimits,
    Send,
    Tick,
)
from heliograph.errors import ConfigurationError, RemoteProtocolError
from heliograph.types import DeliveredKey

LIMITS = RotationLimits()


def key(number: int) -> DeliveredKey:
    return DeliveredKey(str(uuid.UUID(int=number)), bytes([number]) * 32)


def key_id(number: int) -> bytes:
    return uuid.UUID(int=number).bytes


class Machine:
    """One side; keeps what it was told to do."""

    def __init__(self, module):
        self.module = module
        self.state = module.begin(LIMITS, 0.0)
        self.actions = []

    def feed(self, event):
        self.state, actions = self.module.step(self.state, event)
        self.actions += actions
        return actions

    def sent(self, kind):
        return [a.message for a in self.actions if isinstance(a, Send) and isinstance(a.message, kind)][-1]


class RotationPair:
    """Both sides, a control channel without loss, and key managers that give key 1, 2, 3 ..."""

    def __init__(self):
        self.a, self.b = Machine(initiator), Machine(responder)
        self.given = 0

    def run(self, side, event):
        """Feed an event and carry everything out until both sides are quiet."""
        work = [(side, event)]
        while work:
            at, each = work.pop(0)
            other = self.b if at is self.a else self.a
            for action in at.feed(each):
                match action:
                    case Send(message):
                        work.append((other, Received(message)))
                    case FetchKey(attempt):
                        self.given += 1
                        work.append((at, KeyFetched(attempt, key(self.given))))
                    case FetchKeyWithId(attempt, named):
                        work.append((at, KeyFetched(attempt, key(uuid.UUID(bytes=named).int))))
                    case Drain(old):
                        work.append((at, Drained(old)))

    def tick(self, now):
        self.run(self.a, Tick(now))
        self.run(self.b, Tick(now))


def initiator_states():
    """One instance of each state, in a second rotation where there is one: key 1 in use, key 2 on its way."""
    pair = RotationPair()
    idle = pair.a.state
    pair.run(pair.a, ControlUp())
    active = pair.a.state
    fetching, _ = initiator.step(active, Tick(60))
    ready, _ = initiator.step(fetching, KeyFetched(2, key(2)))
    confirm, _ = initiator.step(ready, Received(answer(Ready, Proven.READY, 2, 1)))
    return {"Idle": idle, "Fetching": fetching, "AwaitingReady": ready, "AwaitingConfirm": confirm, "Active": active}


def answer(kind, proven, number, previous, *, forged=False):
    offered = proof(derive(key(number)), proven, key_id(previous) if previous else None, number)
    offered = bytes(32) if forged else offered
    if kind is Prepare:
        return Prepare(key_id(number), key_id(previous) if previous else None, number, offered)
    return kind(key_id(number), number, offered)


def standing(number):
    return Standing(key_id(number), number, proof(derive(key(number)), Proven.STANDING, None, number))


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


def test_a_pair_rotates_and_both_count_the_same():
    pair = RotationPair()
    pair.run(pair.a, ControlUp())
    assert pair.a.state.held.current.key_id == pair.b.state.held.current.key_id == key_id(1)
    assert pair.a.state.held.rekeys == 0
    for turn in range(1, 20):
        pair.tick(61.0 * turn)
        assert pair.a.state.held.current.key_id == pair.b.state.held.current.key_id == key_id(turn + 1)
        assert pair.a.state.held.retiring is None is pair.b.state.held.retiring
        assert pair.a.state.held.rekeys == pair.b.state.held.rekeys == turn


def test_the_responder_accepts_before_the_initiator_sends_and_sends_before_the_old_is_retired():
    pair = RotationPair()
    order = []
    for name, side in (("a", pair.a), ("b", pair.b)):
        feed = side.feed

        def spy(event, feed=feed, name=name):
            actions = feed(event)
            order.extend((name, type(a).__name__) for a in actions if isinstance(a, Install | Activate | Retire))
            return actions

        side.feed = spy
    pair.run(pair.a, ControlUp())
    pair.tick(61)
    first = [("b", "Install"), ("a", "Install"), ("a", "Activate"), ("b", "Activate")]
    assert order[:8] == first + first
    assert sorted(order[8:]) == [("a", "Retire"), ("b", "Retire")]


def test_lost_messages_are_sent_again_until_both_sides_agree():
    a, b = Machine(initiator), Machine(responder)
    a.feed(ControlUp())
    a.feed(KeyFetched(1, key(1)))
    prepare = a.sent(Prepare)  # lost
    a.feed(Tick(1.5))
    assert a.sent(Prepare) == prepare
    b.feed(Received(prepare))
    b.feed(KeyFetched(1, key(1)))
    # Ready is lost: the same Prepare brings it again.
    b.feed(Received(prepare))
    a.feed(Received(b.sent(Ready)))
    commit = a.sent(Commit)
    b.feed(Received(commit))
    # Confirm is lost: Commit is sent again, answered again, counted once.
    a.feed(Tick(3))
    b.feed(Received(a.sent(Commit)))
    a.feed(Received(b.sent(Confirm)))
    assert type(a.state).__name__ == type(b.state).__name__ == "Active"
    assert a.state.held.completed == b.state.held.completed == 1


def test_a_silent_peer_never_makes_us_use_an_unconfirmed_key():
    a = Machine(initiator)
    a.feed(ControlUp())
    for second in range(200):
        for action in a.feed(Tick(float(second))):
            if isinstance(action, FetchKey):
                a.feed(KeyFetched(action.attempt, key(action.attempt)))
    assert not any(isinstance(action, Install | Activate) for action in a.actions)
    fetches = sum(isinstance(action, FetchKey) for action in a.actions)
    assert 5 <= fetches <= 15  # the pause grows, so a silent peer costs few keys
    assert any(isinstance(action, Reconnect) for action in a.actions)


def test_no_key_is_fetched_that_could_not_be_named_to_the_peer():
    a = Machine(initiator)
    for second in range(100):
        a.feed(Tick(float(second)))
    assert a.actions == []


def test_an_empty_key_manager_keeps_the_key_until_its_greatest_age_then_fails_closed_and_recovers():
    pair = RotationPair()
    pair.run(pair.a, ControlUp())
    a = pair.a
    for second in range(60, 300):
        for action in a.feed(Tick(float(second))):
            if isinstance(action, FetchKey):
                a.feed(KeyRefused(action.attempt, final=False))
        assert a.state.held.current is not None
    a.feed(Tick(300.0))
    assert a.state.held.current is None
    assert a.actions.count(Retire(key_id(1))) == 1
    pair.b.feed(Tick(300.0))
    assert pair.b.state.held.current is None
    if not isinstance(a.state, initiator.Fetching):
        pair.run(a, Tick(311.0))
    else:
        a.feed(KeyRefused(a.state.held.attempts, final=False))
        pair.run(a, Tick(311.0))
    assert a.state.held.current.key_id == pair.b.state.held.current.key_id


def test_a_restarted_responder_is_noticed_by_what_it_says_on_connecting():
    pair = RotationPair()
    pair.run(pair.a, ControlUp())
    pair.b = Machine(responder)
    pair.run(pair.a, ControlDown())
    pair.run(pair.a, ControlUp())
    pair.run(pair.b, ControlUp())
    assert pair.a.state.held.current.key_id == pair.b.state.held.current.key_id == key_id(2)


def test_a_restarted_initiator_is_given_a_fresh_key():
    pair = RotationPair()
    pair.run(pair.a, ControlUp())
    pair.a = Machine(initiator)
    pair.run(pair.a, ControlUp())
    assert pair.a.state.held.current.key_id == pair.b.state.held.current.key_id == key_id(2)


def test_a_reconnection_alone_costs_no_key():
    pair = RotationPair()
    pair.run(pair.a, ControlUp())
    pair.run(pair.a, ControlDown())
    pair.run(pair.a, ControlUp())
    pair.run(pair.b, ControlUp())
    assert pair.given == 1


@pytest.mark.parametrize("name", ["rekey_seconds", "answer_seconds", "overlap_seconds"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_that_cannot_be_are_refused(name, value):
    with pytest.raises(ConfigurationError, match=name):
        RotationLimits(**{name: value})


def test_a_rotation_slower_than_the_key_s_greatest_age_is_refused():
    with pytest.raises(ConfigurationError, match="rekey_seconds"):
        RotationLimits(rekey_seconds=300, max_key_age_s=300)
