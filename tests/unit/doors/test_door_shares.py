"""How many connections one caller may hold, and how fast it is refused."""

import pytest

from heliograph.doors.rests import FREE, LONGEST_S, PER_S, Rests
from heliograph.doors.shares import CONNECTIONS_MAX, OF_ONE_MAX, OF_UNKNOWN_MAX, Shares


class Connection:
    closed = False

    def is_closing(self):
        return self.closed


@pytest.mark.parametrize(("caller", "most"), [("sae-a", OF_ONE_MAX), ("", OF_UNKNOWN_MAX)])
def test_one_caller_holds_no_more_than_its_share_and_keeps_what_it_has(caller, most):
    shares = Shares()
    held = [Connection() for _ in range(most)]
    assert [shares.enter(one, caller) for one in held] == [None] * most
    late = Connection()
    assert shares.enter(late, caller) is late
    assert shares.enter(Connection(), "sae-b") is None
    held[0].closed = True
    assert shares.enter(Connection(), caller) is None


def test_callers_who_fill_a_door_together_make_way_for_one_who_holds_less():
    shares = Shares()
    held = {}
    for number in range(CONNECTIONS_MAX):
        one = Connection()
        held[one] = f"sae-{number % 8}"
        assert shares.enter(one, held[one]) is None
    for _ in range(3):
        gone = shares.enter(Connection(), "modest")
        assert held.pop(gone).startswith("sae-")
    refused = Connection()
    assert shares.enter(refused, "sae-0") is refused


def test_closed_connections_are_not_remembered():
    shares = Shares()
    one = Connection()
    shares.enter(one, "sae-a")
    one.closed = True
    shares.forget_closed()
    assert len(shares) == 0


def test_refusals_of_one_caller_come_no_faster_than_the_pace_on_however_many_connections():
    rests, now, due = Rests(), 0.0, [0.0] * 64
    answered = 0
    while now < 10.0:
        at = min(range(64), key=due.__getitem__)
        now = due[at]
        due[at] = now + rests.delay("greedy", now)
        answered += 1
    # Beyond LONGEST_S nothing waits, so that 64 connections have at least one refusal a second each.
    assert answered <= FREE + 10 * max(PER_S, 64 / LONGEST_S) + 64
    assert max(rests.delay("greedy", now) for _ in range(1000)) == LONGEST_S
    assert rests.delay("modest", now) == 0.0


def test_a_caller_who_waits_as_told_is_refused_at_once():
    rests = Rests()
    for second in range(100):
        assert rests.delay("sae-a", float(second)) == 0.0
