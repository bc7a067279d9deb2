"""Real TCP payloads through a pair of agents, with a recorder between the sites."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from tunnel_pair import Relay, Sites, clear_windows, until

from heliograph.testing.clock import ManualClock

MIB = 1 << 20


def test_twenty_mebibytes_cross_intact_while_keys_rotate():
    async def scenario():
        payload = random.Random(1).randbytes(20 * MIB)
        async with Sites(rekey_bytes=MIB) as sites:
            assert await sites.exchange(payload) == b"thank you"
            assert bytes(sites.host.received[0]) == payload
            await sites.settled()
            a, b = sites.a.status(), sites.b.status()
            assert a.rekeys >= 20
            assert abs(a.rekeys - b.rekeys) <= 1
            assert a.refused_records == b.refused_records == a.cut_connections == b.cut_connections == 0
            # No plaintext: none of the payload's windows of 16 bytes was seen between the sites.
            wire = bytes(sites.relay.wire[0])
            assert len(wire) > len(payload)
            assert clear_windows(wire, payload) == 0
            # No nonce twice under one direction key.
            nonces = [(h.key_id, h.sender, h.nonce()) for h in sites.relay.headers()]
            assert len(nonces) == len(set(nonces)) > 300
            assert len({h.key_id for h in sites.relay.headers()}) >= 20
            # Every key used came from the key managers, in clear by its key_ID only.
            assert len(sites.keys.named) >= 21

    asyncio.run(scenario())


def test_the_search_for_clear_text_finds_sixteen_bytes_anywhere():
    payload = random.Random(3).randbytes(100_000)
    cover = random.Random(4).randbytes(1000)
    assert clear_windows(cover, payload) == 0
    for offset in range(40):
        at = 5000 + 7 * offset
        assert clear_windows(cover[: 100 + offset] + payload[at : at + 16] + cover[100 + offset :], payload) >= 1


def test_the_answer_comes_back_intact_under_rotation():
    async def scenario():
        answer = random.Random(2).randbytes(3 * MIB)
        async with Sites(rekey_bytes=MIB // 2) as sites:
            sites.host.reply = lambda _: answer
            assert await sites.exchange(b"please") == answer
            await sites.settled()
            assert sites.a.status().rekeys >= 5  # asked for by the responder's counts as well

    asyncio.run(scenario())


def test_many_connections_share_a_tunnel_while_keys_rotate():
    async def scenario():
        async with Sites(rekey_bytes=MIB // 4) as sites:
            sites.host.reply = lambda got: got[::-1]
            payloads = [random.Random(n).randbytes(200_000 + n) for n in range(30)]
            answers = await asyncio.gather(*(sites.exchange(p) for p in payloads))
            assert answers == [p[::-1] for p in payloads]
            await until(lambda: sites.a.status().live_connections == sites.b.status().live_connections == 0)
            assert sites.a.status().refused_records == sites.b.status().refused_records == 0
            assert sites.b.status().completed_connections == 30

    asyncio.run(scenario())


def test_a_host_that_does_not_read_survives_a_rotation():
    async def scenario():
        clock = ManualClock()
        async with Sites(clock=clock, rekey_seconds=10, overlap_seconds=2) as sites:
            await sites.settled()
            sites.host.reading.clear()
            payload = os.urandom(12 * MIB)
            sending = asyncio.create_task(sites.exchange(payload))
            await until(lambda: sites.a.status().sent_bytes > MIB)
            for _ in range(3):
                before = sites.a.status().rekeys
                clock.seconds += 11
                sites.a.tick()
                await until(lambda was=before: sites.a.status().rekeys > was)
                await sites.settled()
                await until(lambda: sites.a._state.held.retiring is None and sites.b._state.held.retiring is None)
            sites.host.reading.set()
            assert await sending == b"thank you"
            assert bytes(sites.host.received[0]) == payload

    asyncio.run(scenario())


def test_a_connection_whose_opening_is_overtaken_by_a_rotation_is_opened_again():
    async def scenario():
        clock, held = ManualClock(), []

        def hold_first(connection, way, record):
            if connection == 0 and way == 0:
                held.append(record)
                return []
            return [record]

        async with Sites(clock=clock, relay=Relay(tamper=hold_first), rekey_seconds=10, overlap_seconds=5) as sites:
            await sites.settled()
            sending = asyncio.create_task(sites.exchange(b"late but whole"))
            await until(lambda: bool(held))
            clock.seconds = 11
            sites.a.tick()
            await until(lambda: sites.b.status().rekeys == 1 and sites.b._state.held.retiring is None)
            sites.relay.writers[0, 0].write(b"".join(held))
            assert await sending == b"thank you"
            assert [bytes(got) for got in sites.host.received] == [b"late but whole"]
            assert sites.b.status().turned_away == 1

    asyncio.run(scenario())


def test_without_a_key_nothing_is_opened_and_nothing_is_sent():
    async def scenario():
        async with Sites(stock=0) as sites:
            reader, writer = await sites.dial()
            writer.write(b"in clear?" * 1000)
            await until(lambda: sites.a.status().last_refusal is not None)
            assert sites.a.status().mode == sites.b.status().mode == "fail-closed"
            assert sites.relay.count == 0
            assert sites.a.status().sent_records == 0
            writer.close()
            await writer.wait_closed()
            del reader

    asyncio.run(scenario())


def test_a_waiting_connection_goes_through_as_soon_as_keys_come():
    async def scenario():
        clock = ManualClock()
        async with Sites(clock=clock, stock=0) as sites:
            sending = asyncio.create_task(sites.exchange(b"patience"))
            await until(lambda: sites.a.status().last_refusal is not None)
            sites.keys.stock = 10
            clock.seconds += 2
            sites.a.tick()
            assert await sending == b"thank you"
            assert bytes(sites.host.received[0]) == b"patience"

    asyncio.run(scenario())


def test_an_empty_key_manager_stops_traffic_at_the_key_s_greatest_age_and_recovers_by_itself():
    async def scenario():
        clock = ManualClock()
        async with Sites(clock=clock, stock=1, rekey_seconds=10, max_key_age_s=100) as sites:
            await sites.settled()
            reader, writer = await sites.dial()
            writer.write(b"early ")
            await until(lambda: bool(sites.host.received) and bytes(sites.host.received[0]) == b"early ")
            clock.seconds = 60  # overdue for a rotation, no key: the current one goes on
            sites.a.tick()
            await until(lambda: sites.a.status().last_refusal is not None)
            writer.write(b"held ")
            await until(lambda: bytes(sites.host.received[0]) == b"early held ")
            clock.seconds = 99.0  # the sender stops a little before the age
            sent = sites.a.status().sent_records
            writer.write(b"late")
            for _ in range(200):
                await asyncio.sleep(0)
            assert sites.a.status().sent_records == sent
            assert sites.a.status().mode == sites.b.status().mode == "fail-closed"
            clock.seconds = 101
            sites.a.tick()
            sites.b.tick()
            assert sites.a.status().key_id is None
            assert sites.b.status().key_id is None
            assert bytes(sites.host.received[0]) == b"early held "
            await until(lambda: sites.a.status().state == sites.b.status().state == "Idle")
            # Keys come again: the same connection goes on under a fresh one.
            sites.keys.stock = 5
            clock.seconds = 140
            sites.a.tick()
            await sites.settled()
            await until(lambda: bytes(sites.host.received[0]) == b"early held late")
            assert sites.a.status().mode == "encrypting"
            writer.write_eof()
            assert await reader.read(-1) == b"thank you"
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_restart_recovers_under_a_fresh_key_and_repeats_no_nonce(which):
    async def scenario():
        async with Sites(rekey_bytes=MIB) as sites:
            assert await sites.exchange(b"before" * 1000) == b"thank you"
            await sites.settled()
            old = sites.a.status().key_id
            reader, writer = await sites.dial()
            writer.write(os.urandom(300_000))
            await until(lambda: len(sites.host.received) == 2 and len(sites.host.received[1]) > 0)
            if which == "a":
                await sites.a.close()
                await sites.start_a()
            else:
                control, outer = str(sites.b.control_address), str(sites.b.forwarder.outer_address)
                await sites.b.close()
                await sites.start_b(control, outer)
            # The connection that was open is cut, never ended as if it were whole.
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
            await until(lambda: sites.a.status().key_id not in (None, old))
            await sites.settled()
            assert await sites.exchange(b"after" * 1000) == b"thank you"
            assert bytes(sites.host.received[-1]) == b"after" * 1000
            assert sites.host.whole == [True, False, True]
            nonces = [(h.key_id, h.sender, h.nonce()) for h in sites.relay.headers()]
            assert len(nonces) == len(set(nonces))

    asyncio.run(scenario())


def test_a_relay_that_forwards_is_invisible():
    """The tamper tests mean something only because the same relay without tampering lets everything through."""

    async def scenario():
        async with Sites(relay=Relay()) as sites:
            assert await sites.exchange(b"x" * 500_000) == b"thank you"
            assert sites.host.whole == [True]

    asyncio.run(scenario())
