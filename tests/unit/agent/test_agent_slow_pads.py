"""A one-time pad over a slow key manager: its keys come a few at a time, in order, or the reason is told."""

from __future__ import annotations

import asyncio

import pytest
from tunnel_pair import Sites, until

from heliograph.agent.identity import PeerIdentity
from heliograph.agent.pads import AT_ONCE, PadKeys
from heliograph.errors import InsufficientKeys, KeySupplyError
from heliograph.testing.keysource import MemoryKeyManagers
from heliograph.vault.randomness import SystemRandomness


class Slow:
    """A key manager that takes ``seconds`` for each key."""

    def __init__(self, source, seconds):
        self.source, self.seconds = source, seconds

    async def get_key(self):
        await asyncio.sleep(self.seconds)
        return await self.source.get_key()

    async def get_key_with_id(self, key_id):
        await asyncio.sleep(self.seconds)
        return await self.source.get_key_with_id(key_id)


class Crowd:
    """Answers none before ``AT_ONCE`` are asked for, then the newest first; counts how many are under way."""

    def __init__(self, source):
        self.source, self.waiting, self.most = source, [], 0

    async def get_key_with_id(self, key_id):
        mine = asyncio.get_running_loop().create_future()
        self.waiting.append(mine)
        self.most = max(self.most, len(self.waiting))
        if len(self.waiting) == AT_ONCE:
            for each in reversed(self.waiting):
                each.set_result(None)
            self.waiting.clear()
        await mine
        return await self.source.get_key_with_id(key_id)


def test_keys_of_a_pad_are_asked_for_together_a_bounded_number_at_once_and_stay_in_order():
    async def scenario():
        managers = MemoryKeyManagers()
        names = [(await managers.master.get_key()).key_id for _ in range(8 * AT_ONCE)]
        crowd = Crowd(managers.slave)
        keys = await PadKeys(crowd, 5.0).get_keys_with_ids(names)
        assert [key.key_id for key in keys] == names
        assert crowd.most == AT_ONCE

    asyncio.run(scenario())


def test_a_key_manager_that_stops_half_way_is_named_with_what_it_gave():
    class Stops:
        given = 0

        async def get_key(self):
            self.given += 1
            if self.given > 20:
                await asyncio.Event().wait()
            return await source.get_key()

    source = MemoryKeyManagers().master

    async def scenario():
        with pytest.raises(KeySupplyError, match=r"gave 20 of the 64 keys of a one-time pad in 0.1 s.*lower pad_keys"):
            await PadKeys(Stops(), 0.1).get_keys(64)
        assert len(asyncio.all_tasks()) == 1  # nothing goes on asking

    asyncio.run(scenario())


def test_a_pool_that_runs_out_half_way_says_so_and_asks_for_no_more():
    async def scenario():
        managers = MemoryKeyManagers(stock=10)
        with pytest.raises(InsufficientKeys):
            await PadKeys(managers.master, 5.0).get_keys(64)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def pads(slow_a, slow_b, answer_seconds):
    names, randomness = ("sae-a", "sae-b"), SystemRandomness()
    pair = tuple(PeerIdentity(*each, b"k" * 32, randomness) for each in (names, names[::-1]))
    sites = Sites(identities=pair, cipher="one-time-pad", peer_key="peer.key", pad_keys=64)
    sites.source_a, sites.source_b = Slow(sites.source_a, slow_a), Slow(sites.source_b, slow_b)
    sites.limits = {"answer_seconds": answer_seconds}
    return sites


def test_a_tunnel_under_a_pad_opens_although_its_keys_take_longer_one_by_one_than_a_peer_waits():
    async def scenario():
        async with pads(0.05, 0.05, 2.0) as sites:  # 3.2 s one by one
            await sites.settled()
            assert await sites.exchange(b"in time") == b"thank you"

    asyncio.run(scenario())


def test_a_responder_whose_key_manager_is_too_slow_says_it_and_the_initiator_points_there():
    async def scenario():
        async with pads(0.0, 0.3, 0.5) as sites:
            await until(lambda: "of the 64 keys" in (sites.b.status().last_refusal or ""))
            await until(lambda: "its own status tells" in (sites.a.status().last_refusal or ""))
            assert sites.a.status().mode == sites.b.status().mode == "fail-closed"

    asyncio.run(scenario())
