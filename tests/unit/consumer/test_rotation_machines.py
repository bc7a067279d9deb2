"""The two rotation machines in scenarios of loss, lies, restarts and empty key managers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rotation_pair import LIMITS, Machine, RotationPair, answer, initiator_states, key, key_id

from heliograph.consumer import initiator, responder
from heliograph.consumer.keys import Proven
from heliograph.consumer.messages import Commit, Confirm, Prepare, Ready
from heliograph.consumer.rotation import (
    Activate,
    ControlDown,
    ControlUp,
    Drain,
    Drained,
    FetchKey,
    Install,
    KeyFetched,
    KeyRefused,
    LimitReached,
    NotTaken,
    Received,
    Reconnect,
    Retire,
    RotationLimits,
    Tick,
)
from heliograph.errors import ConfigurationError


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


def test_a_key_that_the_encryptor_did_not_take_gives_way_to_the_one_before_and_another_is_tried():
    pair = RotationPair()
    pair.run(pair.a, ControlUp())
    a, b = pair.a, pair.b
    a.feed(Tick(60))
    a.feed(KeyFetched(2, key(2)))
    b.feed(Received(a.sent(Prepare)))
    b.feed(KeyFetched(2, key(2)))
    a.feed(Received(b.sent(Ready)))  # the commit is withheld: no association comes up under this key
    assert a.feed(NotTaken(key_id(2))) == [Activate(key_id(1)), Retire(key_id(2))]
    assert a.state.held.current.key_id == b.state.held.current.key_id == key_id(1)
    pair.given = 2
    pair.tick(62)
    assert a.state.held.current.key_id == b.state.held.current.key_id == key_id(3)


def test_a_keys_age_counts_from_when_it_was_asked_for():
    """A key establishment may take half a minute after the key manager gave its part."""
    a = Machine(initiator)
    a.feed(ControlUp())
    a.feed(Tick(29.0))
    a.feed(KeyFetched(1, key(1)))
    assert a.state.candidate.since == 0.0


def test_a_key_that_is_too_old_when_the_peer_is_ready_is_never_installed():
    a = Machine(initiator)
    a.state = initiator_states()["AwaitingReady"]
    candidate = a.state.candidate
    held = replace(a.state.held, now=candidate.since + a.state.held.limits.max_key_age_s)
    a.state = replace(a.state, held=held)
    a.feed(Received(answer(Ready, Proven.READY, 2, 1)))
    assert a.actions == []
    a.state = replace(a.state, held=replace(held, now=held.now - 1))
    a.feed(Received(answer(Ready, Proven.READY, 2, 1)))
    assert Activate(candidate.key_id) in a.actions


def test_no_rotation_starts_while_two_generations_overlap():
    a = Machine(initiator)
    a.state = initiator_states()["AwaitingConfirm"]
    a.feed(Received(answer(Confirm, Proven.CONFIRM, 2, 1)))
    assert a.actions == [Drain(key_id(1))]
    a.feed(LimitReached(key_id(2)))
    assert a.actions == [Drain(key_id(1))]
    # What was asked for meanwhile starts as soon as the old generation is gone.
    a.feed(Drained(key_id(1)))
    assert a.actions[1:] == [Retire(key_id(1)), FetchKey(3)]


def test_the_overlap_ends_in_time_even_if_a_connection_never_drains():
    a = Machine(initiator)
    a.state = initiator_states()["AwaitingConfirm"]
    a.feed(Received(answer(Confirm, Proven.CONFIRM, 2, 1)))
    a.feed(Tick(60 + LIMITS.overlap_seconds - 0.1))
    assert Retire(key_id(1)) not in a.actions
    a.feed(Tick(60 + LIMITS.overlap_seconds))
    assert Retire(key_id(1)) in a.actions


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
