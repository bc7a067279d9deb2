"""strongSwan under keys of the link: two real charons in two namespaces, and a wire on which no clear text may be seen.

The wire would take clear text: each gateway has a default route to the other. Every test looks at all that crossed it.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from strongswan_pair import Gateways, Pair, require_strongswan


@pytest.fixture
def gateways(tmp_path):
    """Two gateways whose wire has not carried the marker, whatever the test did."""
    require_strongswan()
    with Gateways(tmp_path) as pair:
        yield pair
        wire = pair.recorded()
        assert pair.END.encode() in wire  # the recorder was there to the end
        assert pair.MARKER.encode() not in wire


def test_a_tunnel_opens_under_the_links_key_rotates_and_shuts_with_the_agents(gateways):
    async def scenario():
        pair = Pair(gateways)
        pair.keys.stock = 0
        async with pair:
            assert not await pair.passes(tries=2)  # guarded before the first key
            pair.keys.stock = 1000
            await pair.encrypting()
            assert await pair.passes()
            before = pair.a.status().key_id
            for _ in range(3):
                await pair.rotated()
                assert await pair.passes()
                await pair.only(1)
            assert pair.a.status().key_id == pair.b.status().key_id != before
            assert pair.a.status().received_bytes > 0 < pair.b.status().sent_bytes
            # A key is in charon's store while its association comes up, and not afterwards.
            assert gateways.shared_keys(0) == gateways.shared_keys(1) == []
        assert gateways.associations(0) == gateways.associations(1) == []
        assert not await asyncio.to_thread(gateways.passes, tries=2)

    asyncio.run(scenario())


def test_the_recorder_sees_the_marker_where_nothing_guards(tmp_path):
    """So that its absence in the other tests means something."""
    require_strongswan()
    with Gateways(tmp_path) as pair:
        assert pair.passes()
        assert pair.MARKER.encode() in pair.recorded()


def test_traffic_flows_while_keys_rotate(gateways):
    """200 packets a second across several changes; RFC 8784 gives each association its own key, made before broken."""

    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            with gateways.stream() as counts:
                for _ in range(20):
                    await pair.rotated()
            assert pair.a.status().rekeys >= 20
            assert counts["sent"] > 50
            assert counts["refused"] == 0
            # What was under way under the old association when the peer let it go: one or two packets a change.
            assert counts["sent"] - counts["back"] <= 2 * pair.a.status().rekeys

    asyncio.run(scenario())


@pytest.mark.parametrize("side", [0, 1], ids=["initiator", "responder"])
def test_a_charon_killed_under_its_agent_is_an_alarm_and_comes_back_by_itself(gateways, side):
    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            gateways.kill(side)
            agent = (pair.a, pair.b)[side]
            await pair.until(lambda: agent.status().mode == "fail-closed" and agent.status().alarm is not None)
            assert gateways.socket_path(side) in agent.status().alarm
            assert not await pair.passes(tries=2)
            before = agent.status().rekeys
            gateways.start(side)
            await pair.until(lambda: agent.status().rekeys > before)
            await pair.encrypting()
            assert await pair.passes()

    asyncio.run(scenario())


def test_a_charon_restarted_between_two_looks_is_noticed(gateways):
    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            used = pair.a.status().key_id
            gateways.kill(0)
            gateways.start(0)
            await pair.until(lambda: pair.a.status().alarm is not None)
            assert "is gone" in pair.a.status().alarm
            await pair.encrypting()
            assert await pair.passes()
            assert pair.a.status().key_id != used  # each key opens one association

    asyncio.run(scenario())


def test_an_empty_pool_shuts_the_tunnel_when_its_key_is_too_old(gateways):
    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            pair.keys.stock = 0
            pair.clock.ahead += 301
            await pair.until(lambda: pair.a.status().key_id is pair.b.status().key_id is None)
            assert pair.a.status().mode == pair.b.status().mode == "fail-closed"
            await pair.until(lambda: gateways.associations(0) == gateways.associations(1) == [])
            assert not await pair.passes(tries=3)
            pair.keys.stock = 10
            pair.clock.ahead += 11
            await pair.encrypting()
            assert await pair.passes()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("hybrid-required", "fail-closed"),
        ("qkd-preferred", "without-qkd"),
        ("pqc-only", "without-qkd"),
    ],
)
def test_without_a_key_of_the_link_each_policy_does_what_it_says(gateways, policy, mode):
    async def scenario():
        async with Pair(gateways, policy=policy) as pair:
            await pair.encrypting("without-qkd" if policy == "pqc-only" else "encrypting")
            assert await pair.passes()
            pair.keys.stock = 0
            pair.clock.ahead += 301
            await pair.until(lambda: pair.a.status().mode == pair.b.status().mode == mode)
            if mode == "fail-closed":
                await pair.until(lambda: gateways.associations(0) == gateways.associations(1) == [])
            assert await pair.passes(tries=4) is (mode != "fail-closed")

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", ["qkd-only", "hybrid-required", "qkd-preferred", "pqc-only"])
def test_a_peer_whose_agent_is_silent_ends_every_policys_tunnel_at_the_keys_age(gateways, policy):
    """No policy can do without the peer: its charon goes on, and this side ends what has grown too old."""

    async def scenario():
        more = {} if policy == "qkd-only" else {"policy": policy}
        async with Pair(gateways, **more) as pair:
            await pair.encrypting("without-qkd" if policy == "pqc-only" else "encrypting")
            pair.b._encryptor._settler._closed = True  # it says nothing more to its charon, not even farewell
            await pair.b.close()
            assert await pair.passes()
            pair.clock.ahead += 290
            pair.a.tick()
            assert await pair.passes()
            pair.clock.ahead += 11
            async with asyncio.timeout(30):
                while pair.a.status().mode != "fail-closed" or gateways.associations(0):
                    pair.a.tick()
                    await asyncio.sleep(0.01)
            assert not await pair.passes(tries=2)

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_wire_that_is_cut_is_an_alarm_and_the_tunnel_comes_back_with_it(gateways):
    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            gateways.cut(whole=False)
            pair.clock.ahead += 61
            await pair.until(lambda: pair.a.status().alarm is not None)
            assert "no association" in pair.a.status().alarm
            assert not await pair.passes(tries=2)
            gateways.cut(whole=True)
            await pair.rotated()
            assert await pair.passes()

    asyncio.run(scenario())


def test_two_different_keys_under_one_name_open_nothing_and_the_old_association_goes_on(gateways):
    """Somebody puts another key in the responder's charon: the change fails, and nothing is sent under either."""

    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            used = pair.a.status().key_id
            work = pair.b._encryptor._work
            load = work._charon.load_key
            work._charon.load_key = lambda session, name, key_id, _: load(session, name, key_id, bytes(32))
            pair.clock.ahead += 61
            await pair.until(lambda: pair.a.status().alarm is not None)
            assert "no association" in pair.a.status().alarm
            assert await pair.passes()  # under the key before
            assert pair.a.status().key_id == pair.b.status().key_id == used
            assert "N(AUTH_FAILED)" in gateways.log(0)
            work._charon.load_key = load
            await pair.rotated()  # with another key, long before the one that failed is too old
            assert pair.clock.ahead < 250
            assert await pair.passes()

    asyncio.run(scenario())


def test_what_an_agent_that_was_killed_left_is_ended_by_the_next_one(gateways):
    async def scenario():
        pair = Pair(gateways)
        async with pair:
            await pair.encrypting()
            left = gateways.associations(0)[0]["initiator-spi"]
            pair.kill()
            later = Pair(gateways)
            async with later:
                assert [sa for sa in gateways.associations(0) if sa["initiator-spi"] == left] == []
                await later.encrypting()
                assert await later.passes()

    asyncio.run(scenario())


@pytest.mark.slow
def test_charon_ends_the_tunnel_of_a_dead_agent_when_its_key_is_too_old(gateways):
    """In real time: nobody tells charon anything any more, and nothing passes past max_key_age_s."""

    async def scenario():
        pair = Pair(gateways, rekey_seconds=2.0, max_key_age_s=6.0)
        async with pair:
            await pair.encrypting()
            assert await pair.passes()
            pair.kill()
            began = time.monotonic()
            while await pair.passes(tries=2):
                assert time.monotonic() - began < 12

    asyncio.run(scenario())


def test_ml_kem_is_in_the_association_where_charon_has_it(gateways):
    if "ML_KEM_768" not in gateways.exchanges(0):
        pytest.skip("this charon has no ML-KEM: strongSwan 6.1.0 with OpenSSL 3.5 has")

    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            assert gateways.associations(0)[0]["ake1"] == b"ML_KEM_768"
            assert gateways.associations(0)[0]["dh-group"] == b"CURVE_25519"

    asyncio.run(scenario())
