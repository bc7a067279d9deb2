"""Whose handshake begins, and who makes way, while others flood: no connection is needed to see it."""

from heliograph.doors import waiting as rules
from heliograph.doors.sources import CONNECTS, FAILED_S, PROVED, PROVED_S, STRANGERS, Sources, source_of
from heliograph.doors.waiting import HANDSHAKE_SECONDS, STALL_SECONDS, UNDER_WAY_OF_ONE, WAITING_MAX, Waiting

PROVED_AT_ONCE = int(PROVED.burst)
SAE, FLOOD = "10.0.0.1", "192.0.2.1"


def prove(sources, source=SAE, caller="sae-a", now=0.0):
    sources.proved(source, caller, sources.begin(source, now), now)


def ready(waiting, who, source, now=0.0):
    gone = waiting.enter(who, source, now)
    waiting.hello(who, now)
    return gone


def begin_all(waiting, now=0.0):
    begun = []
    while (who := waiting.next(now)) is not None:
        begun.append(who)
    return begun


def test_strangers_from_many_addresses_take_no_handshake_from_a_client_that_proved_its_certificate_lately():
    sources = Sources()
    prove(sources)
    waiting = Waiting(sources)
    for number in range(400):
        ready(waiting, f"stranger-{number}", f"192.0.2.{number % 200}")
    assert len(begin_all(waiting)) == STRANGERS.burst
    assert ready(waiting, "sae", SAE) is None
    assert begin_all(waiting) == ["sae"]


def test_no_number_of_strangers_begins_more_handshakes_than_the_pace():
    waiting, begun = Waiting(Sources()), 0
    for step in range(1000):
        now = step / 100
        for number in range(8):
            ready(waiting, (step, number), f"192.0.2.{(8 * step + number) % 250}", now)
        for who in begin_all(waiting, now):
            waiting.ended(who, now, None)
            begun += 1
    assert begun <= STRANGERS.burst + 10 * STRANGERS.per_second + 1
    assert begun > 9 * STRANGERS.per_second


def test_a_client_that_comes_for_the_first_time_is_before_strangers_who_failed():
    sources = Sources()
    waiting = Waiting(sources)
    sources.failed(FLOOD, 0.0)
    for number in range(100):
        ready(waiting, number, FLOOD)
    ready(waiting, "new", SAE)
    assert waiting.next(0.0) == "new"
    assert sources.rank(FLOOD, FAILED_S) == 1  # forgotten after a while


def test_sources_take_turns():
    waiting = Waiting(Sources())
    for number in range(12):
        ready(waiting, ("flood", number), FLOOD)
    ready(waiting, "one", SAE)
    assert "one" in [waiting.next(0.0), waiting.next(0.0)]


def test_in_a_flood_from_its_own_address_a_newcomer_need_not_wait_for_those_who_have_given_up():
    sources = Sources()
    prove(sources)
    waiting = Waiting(sources)
    for number in range(PROVED_AT_ONCE):
        ready(waiting, number, SAE, number / 1000)
    assert waiting.next(0.5) == 0  # in order
    ready(waiting, "new", SAE, 1.5)
    assert waiting.next(1.5) == "new"


def test_a_full_room_is_cleared_of_whoever_holds_most_and_never_of_a_proved_source_while_there_are_others():
    sources = Sources()
    prove(sources)
    waiting = Waiting(sources)
    assert waiting.enter("sae", SAE, 0.0) is None
    for number in range(4 * WAITING_MAX):
        waiting.enter(number, f"192.0.2.{number % 3}", 0.0)
        assert len(waiting) <= WAITING_MAX
    assert waiting.enter("new", "10.0.0.9", 1.0) is not None
    assert {"sae", "new"} <= set(waiting.everybody())


def test_whoever_proved_two_addresses_and_fills_the_room_from_both_keeps_nobody_out():
    sources = Sources()
    for source in (FLOOD, "192.0.2.2", SAE):
        prove(sources, source)
    waiting = Waiting(sources)
    for number in range(WAITING_MAX):
        assert waiting.enter(number, (FLOOD, "192.0.2.2")[number % 2], 0.0) is None
    # Neither a client with a certificate nor one that comes for the first time.
    assert isinstance(ready(waiting, "sae", SAE), int)
    assert isinstance(ready(waiting, "new", "10.0.0.9"), int)
    assert len(waiting) == WAITING_MAX
    assert {waiting.next(0.0), waiting.next(0.0)} == {"sae", "new"}


def test_of_a_room_full_of_proved_clients_with_few_connections_each_no_stranger_takes_a_place():
    sources = Sources()
    waiting = Waiting(sources)
    for number in range(WAITING_MAX):
        source = f"10.0.{number % 250}.1"
        prove(sources, source, source)
        waiting.enter(number, source, 0.0)
    assert waiting.enter("stranger", FLOOD, 0.0) == "stranger"
    assert waiting.enter("another", "10.0.7.1", 0.0) == "another"


def test_a_flood_of_silent_connections_from_one_address_pushes_out_only_its_own():
    waiting = Waiting(Sources())
    waiting.enter("other", SAE, 0.0)
    gone = [waiting.enter(number, FLOOD, 0.0) for number in range(1000)]
    assert "other" in waiting.everybody()
    assert len(waiting) == rules.WAITING_OF_ONE + 1
    assert "other" not in gone


def test_the_oldest_of_handshakes_that_fill_all_places_of_a_source_makes_way_when_it_stalls():
    sources = Sources()
    prove(sources, FLOOD)  # somebody in the same network is rightful
    waiting = Waiting(sources)
    for number in range(UNDER_WAY_OF_ONE):
        ready(waiting, number, FLOOD)
    assert len(begin_all(waiting)) == UNDER_WAY_OF_ONE
    ready(waiting, "next", FLOOD)
    assert waiting.next(0.0) is None
    assert waiting.overdue(STALL_SECONDS / 2) == []
    (oldest,) = waiting.overdue(STALL_SECONDS)
    waiting.ended(oldest, STALL_SECONDS, None)
    assert waiting.next(STALL_SECONDS) == "next"


def test_whoever_waits_silently_is_overdue_after_the_time_of_a_handshake():
    waiting = Waiting(Sources())
    waiting.enter("silent", FLOOD, 0.0)
    assert waiting.overdue(HANDSHAKE_SECONDS - 0.1) == []
    assert waiting.overdue(HANDSHAKE_SECONDS) == ["silent"]


def test_an_sae_that_reconnects_all_the_time_is_paced_like_strangers_at_last():
    sources = Sources()
    begun = 0
    for step in range(2000):
        now = step / 1000
        if sources.may_begin(SAE, now):
            prove(sources, now=now)
            begun += 1
    allowed = CONNECTS.burst + PROVED.burst + STRANGERS.burst + 2 * (CONNECTS.per_second + PROVED.per_second)
    assert CONNECTS.burst < begun <= allowed


def test_a_proof_is_forgotten_in_time_and_so_are_addresses():
    sources = Sources()
    prove(sources)
    assert sources.has_proved(SAE, PROVED_S - 1)
    assert not sources.has_proved(SAE, PROVED_S)
    for number in range(5000):
        prove(sources, f"10.1.{number // 250}.{number % 250}", f"sae-{number}", 1.0 + number)
        sources.failed(f"10.2.{number // 250}.{number % 250}", 1.0)
    assert all(len(known) <= 1024 for known in (sources._proved, sources._failed, sources._callers))


def test_an_ipv6_network_is_one_source_and_a_mapped_address_is_its_ipv4_one():
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1%eth0") != source_of("2001:db8:0:1::1")
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1") == "10.0.0.1"
