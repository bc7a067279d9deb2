"""Two tunnels between the same two gateways, on real charons: told apart by their names, or refused in one line."""

from __future__ import annotations

import asyncio

import pytest
from strongswan_pair import Gateways, Pair, require_strongswan

from heliograph.errors import ConfigurationError


@pytest.fixture
def gateways(tmp_path):
    require_strongswan()
    with Gateways(tmp_path) as pair:
        yield pair
        wire = pair.recorded()
        assert pair.END.encode() in wire
        assert pair.MARKER.encode() not in wire


def second(gateways, **changes):
    return [
        gateways.table(side) | told | {name: value[side] for name, value in changes.items()}
        for side, told in enumerate(gateways.second_network())
    ]


IDS = {
    "local_id": ("second.gw-a.example", "second.gw-b.example"),
    "remote_id": ("second.gw-b.example", "second.gw-a.example"),
}


def test_two_tunnels_with_names_of_their_own_rotate_side_by_side(gateways):
    async def scenario():
        async with Pair(gateways) as one, Pair(gateways, second(gateways, **IDS)) as two:
            await one.encrypting()
            await two.encrypting()
            for _ in range(2):
                assert await one.passes()
                assert await two.passes(network=1)
                await one.rotated()
                await two.rotated()
                await one.only(2)
            assert one.a.status().key_id != two.a.status().key_id
            # Each ends alone.
            await two.a.close()
            await two.b.close()
            assert not await two.passes(network=1, tries=2)
            assert await one.passes()

    asyncio.run(scenario())


def test_a_tunnel_that_a_responder_could_not_tell_from_another_is_refused_and_the_other_goes_on(gateways):
    async def scenario():
        async with Pair(gateways) as one:
            await one.encrypting()
            with pytest.raises(ConfigurationError, match="local_id and a remote_id of its own"):
                async with Pair(gateways, second(gateways)):
                    pass
            await one.rotated()
            assert await one.passes()

    asyncio.run(scenario())


def test_a_rival_that_comes_later_is_an_alarm_and_gets_no_key(gateways):
    """Both started before either had a key: the first to get one keeps its gateways' names."""

    async def scenario():
        late = Pair(gateways, second(gateways))
        late.keys.stock = 0
        async with late, Pair(gateways) as one:
            await one.encrypting()
            late.keys.stock = 1000
            late.clock.ahead += 61
            await late.until(lambda: "its own" in (late.b.status().alarm or "") or late.b.status().key_id is not None)
            assert late.a.status().mode == late.b.status().mode == "fail-closed"
            assert not await late.passes(network=1, tries=2)
            await one.rotated()
            assert await one.passes()

    asyncio.run(scenario())


def test_two_agents_under_one_name_would_end_each_others_associations_and_the_second_is_refused(gateways):
    async def scenario():
        async with Pair(gateways) as one:
            await one.encrypting()
            tables = [table | {"name": "heliograph"} for table in second(gateways, **IDS)]
            with pytest.raises(ConfigurationError, match="another agent drives the tunnel 'heliograph'"):
                async with Pair(gateways, tables):
                    pass
            assert await one.passes()
        async with Pair(gateways, tables) as again:  # and after its end the name is free
            await again.encrypting()

    asyncio.run(scenario())
