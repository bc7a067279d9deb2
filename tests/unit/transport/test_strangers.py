"""Who makes way among connections that have not proved themselves: the silent, the many, the old."""

from __future__ import annotations

from heliograph.transport.strangers import Strangers


class Connection:
    """A connection from an address, that notes its end."""

    def __init__(self, peer_host):
        self.peer_host = peer_host
        self.cut = False

    def abort(self):
        self.cut = True


def crowd(hosts, heard=()):
    strangers, all_of_them = Strangers(), [Connection(host) for host in hosts]
    for number, one in enumerate(all_of_them):
        strangers.add(one)
        if number in heard:
            strangers.heard(one)
    return strangers, all_of_them


def test_eight_are_borne_and_the_ninth_ends_one():
    strangers, known = crowd(["192.0.2.1"] * 8)
    assert not any(one.cut for one in known)
    strangers.add(Connection("192.0.2.1"))
    assert [one.cut for one in known] == [True] + [False] * 7  # of equals, the oldest


def test_one_that_said_hello_outlives_those_that_say_nothing():
    strangers, known = crowd(["192.0.2.1"] * 8, heard={0})
    strangers.add(Connection("192.0.2.1"))
    assert [number for number, one in enumerate(known) if one.cut] == [1]


def test_a_flood_from_one_address_does_not_push_out_the_peer_at_another():
    strangers, known = crowd(["192.0.2.7", *["192.0.2.1"] * 7], heard=set(range(8)))
    for _ in range(100):
        one = Connection("192.0.2.1")
        strangers.add(one)
        strangers.heard(one)
        for cut in [other for other in strangers if other.cut]:
            strangers.remove(cut)
    assert not known[0].cut
    assert len(list(strangers)) == 8


def test_one_that_has_proved_itself_makes_way_for_nobody():
    strangers, known = crowd(["192.0.2.1"] * 8)
    strangers.remove(known[0])
    strangers.add(Connection("192.0.2.1"))
    assert not any(one.cut for one in known)
