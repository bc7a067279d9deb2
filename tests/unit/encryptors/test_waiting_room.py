"""Who makes way at an outer port: strangers for each other, and nobody who showed a key for a stranger."""

from __future__ import annotations

import random

from heliograph.encryptors.waiting_room import GRACE_SECONDS, WaitingRoom

MOST = 8
STRANGER, PEER = "198.51.100.7", "192.0.2.1"


def test_idle_strangers_are_bounded_and_push_out_only_each_other():
    room, gone = WaitingRoom(MOST), []
    assert room.enter("peer", PEER, 0.0) is None
    assert room.show("peer") is None
    for number in range(10_000):
        out = room.enter(number, STRANGER, number * 0.001)
        gone += [] if out is None else [out]
        assert len(room) <= 4 * MOST + 1
    assert "peer" not in gone
    assert gone == list(range(len(gone)))  # the oldest first


def test_a_newcomer_has_a_moment_for_its_first_word_although_strangers_crowd_in():
    room = WaitingRoom(MOST)
    for number in range(3 * MOST):
        room.enter(number, STRANGER, 0.0)
    room.enter("peer", PEER, 0.0)
    now = 0.0
    for number in range(100, 100 + 3 * MOST):
        now += 0.9 * GRACE_SECONDS / (3 * MOST)
        assert room.enter(number, STRANGER, now) != "peer"
    room.show("peer")
    for number in range(200, 400):
        assert room.enter(number, STRANGER, now) != "peer"


def test_where_a_key_was_proved_before_nobody_is_pushed_out_by_a_stranger_at_any_speed():
    room = WaitingRoom(MOST)
    room.enter("first", PEER, 0.0)
    room.prove("first")
    assert len(room) == 0
    for number in range(4 * MOST):
        room.enter(number, STRANGER, 1.0)
    assert room.enter("moves", PEER, 1.0) not in (None, "moves")  # a stranger goes
    for number in range(1000, 2000):
        assert room.enter(number, STRANGER, 1.0) != "moves"
    # Not even when there are none but such: then the stranger is sent away.
    room = WaitingRoom(MOST)
    room.enter("first", PEER, 0.0)
    room.prove("first")
    for number in range(4 * MOST):
        assert room.enter(number, PEER, 2.0) is None
    assert room.enter("stranger", STRANGER, 9.0) == "stranger"
    assert room.enter("one more", PEER, 9.0) == 0


def test_repeated_hellos_are_bounded_too():
    room = WaitingRoom(MOST)
    for number in range(1000):
        room.enter(number, STRANGER, float(number))
        room.show(number)
        assert len(room) <= 2 * MOST


def test_remembered_addresses_are_bounded():
    room = WaitingRoom(MOST)
    for number in range(1000):
        room.enter(number, f"10.0.{number // 256}.{number % 256}", 0.0)
        room.prove(number)
    assert len(room._proven) == 64


def test_whatever_comes_and_goes_the_room_is_bounded_and_forgets_who_left():
    chance, room, now, inside = random.Random(1), WaitingRoom(MOST), 0.0, []
    for number in range(20_000):
        now += chance.choice([0.0, 0.001, 0.1])
        kind = chance.random()
        if kind < 0.6 or not inside:
            out = room.enter(number, chance.choice([STRANGER, PEER]), now)
            if out is not number:
                inside.append(number)
            if out is not None and out in inside:
                inside.remove(out)
        else:
            who = inside.pop(chance.randrange(len(inside)))
            if kind < 0.7:
                room.prove(who)
            elif kind < 0.8:
                inside.append(who)
                out = room.show(who)
                if out is not None:
                    inside.remove(out)
            else:
                room.leave(who)
        assert len(room) == len(inside) <= 5 * MOST
