"""Max_bps and Priority of ETSI GS QKD 004: no stream outruns its registration, and who goes first when keys are few."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
from two_stream_sites import stock, two_sites

from heliograph.kme.etsi004 import Qos, Status
from heliograph.kme.stream_pace import PATIENCE_S, Pace
from heliograph.kme.streams import KEYS_LEFT
from heliograph.testing.clock import ManualClock

QOS = Qos(32, ttl_s=3600)
SOURCE, DESTINATION = "sae:sae-a", "sae:sae-b"
BITS = 8 * QOS.key_chunk_size


def run(act, directory, **more):
    async def main():
        async with two_sites(directory, **more) as (a, b, clock), AsyncExitStack() as stack:
            apps = [await stack.enter_async_context(site.app()) for site in (a, b)]
            await act(SimpleNamespace(a=a, b=b, clock=clock, one=apps[0], two=apps[1]))

    asyncio.run(main())


async def opened(w, qos=QOS):
    first = await w.one.open_connect(SOURCE, DESTINATION, qos)
    second = await w.two.open_connect(SOURCE, DESTINATION, qos, first.ksid)
    assert (first.status, second.status) == (Status.PEER_NOT_CONNECTED, Status.SUCCESSFUL)
    return first.ksid


async def settled(w):
    """Let the reservations that are under way end."""
    while w.a.service._reserving or w.b.service._reserving:
        await asyncio.gather(*w.a.service._reserving.values(), *w.b.service._reserving.values())


def test_a_stream_is_never_faster_than_its_registered_max_bps(tmp_path):
    async def act(w):
        ksid = await opened(w, replace(QOS, max_bps=2 * BITS))  # two chunks a second
        got, index = {"one": 0, "two": 0}, {"one": 0, "two": 0}
        for second in range(6):
            for name, app in (("one", w.one), ("two", w.two)):
                while (reply := await app.get_key(ksid, index[name])).status is Status.SUCCESSFUL:
                    index[name] += 1
                    got[name] += 8 * len(reply.key)
                assert reply.status is Status.INSUFFICIENT_KEY
                assert got[name] == 2 * BITS * (second + 1)  # a second's worth at once, and the rate from then on
            w.clock.advance(1)

    run(act, tmp_path)


def test_a_chunk_that_came_too_early_is_not_lost(tmp_path):
    async def act(w):
        ksid = await opened(w, replace(QOS, max_bps=BITS))
        first = await w.one.get_key(ksid, 0)
        assert (await w.one.get_key(ksid, 1)).status is Status.INSUFFICIENT_KEY
        w.clock.advance(0.99)
        assert (await w.one.get_key(ksid, 1)).status is Status.INSUFFICIENT_KEY
        w.clock.advance(0.01)
        second = await w.one.get_key(ksid, 1)
        assert (first.status, second.status) == (Status.SUCCESSFUL, Status.SUCCESSFUL)
        assert (
            second.key == ((await w.two.get_key(ksid, 0)) and (w.clock.advance(1) or await w.two.get_key(ksid, 1))).key
        )

    run(act, tmp_path)


def test_a_max_bps_below_one_chunk_a_second_gives_a_chunk_when_its_bits_are_due(tmp_path):
    async def act(w):
        ksid = await opened(w, replace(QOS, max_bps=BITS // 4))
        statuses = []
        for index in (0, 1, 1, 1, 1, 1):
            statuses.append((await w.one.get_key(ksid, index)).status)
            w.clock.advance(1)
        assert statuses == [
            Status.SUCCESSFUL,
            *[Status.INSUFFICIENT_KEY] * 3,
            Status.SUCCESSFUL,
            Status.INSUFFICIENT_KEY,
        ]

    run(act, tmp_path)


def test_asking_too_fast_reserves_nothing(tmp_path):
    async def act(w):
        ksid = await opened(w, replace(QOS, max_bps=BITS))
        assert (await w.one.get_key(ksid, 0)).status is Status.SUCCESSFUL
        await settled(w)
        before = w.a.stored()
        for index in (100, 200):
            assert (await w.one.get_key(ksid, index)).status is Status.INSUFFICIENT_KEY
        await settled(w)
        assert w.a.stored() == before

    run(act, tmp_path)


def test_what_did_not_fit_its_metadata_is_not_counted(tmp_path):
    async def act(w):
        ksid = await opened(w, replace(QOS, max_bps=BITS, mimetype="application/json"))
        for _ in range(5):
            assert (await w.one.get_key(ksid, 0, metadata_size=1)).status is Status.METADATA_SIZE
        assert (await w.one.get_key(ksid, 0)).status is Status.SUCCESSFUL

    run(act, tmp_path)


def test_streams_are_counted_apart_and_0_is_no_limit(tmp_path):
    async def act(w):
        slow, free = await opened(w, replace(QOS, max_bps=BITS)), await opened(w)
        assert (await w.one.get_key(slow, 0)).status is Status.SUCCESSFUL
        assert (await w.one.get_key(slow, 1)).status is Status.INSUFFICIENT_KEY
        assert {(await w.one.get_key(free, i)).status for i in range(10)} == {Status.SUCCESSFUL}

    run(act, tmp_path)


@pytest.mark.parametrize("max_bps", [10**9, 2**32 - 1])
def test_the_largest_rates_of_the_wire_are_no_error(max_bps):
    stream = SimpleNamespace(ksid=bytes(16), qos=replace(QOS, max_bps=max_bps))
    pace = Pace(ManualClock(0.0))
    for _ in range(100):
        assert pace.may_have(stream)
        pace.had(stream)


async def exhausted(w, *streams):
    """Take every chunk there is, of each stream in its turn; return the index of each that was asked for in vain."""
    index = {}
    for ksid in streams:
        index[ksid] = 0
        while (await w.one.get_key(ksid, index[ksid])).status is Status.SUCCESSFUL:
            index[ksid] += 1
    await settled(w)
    return index


def one_more(w):
    """Let there be exactly one key more than those that stay for messages."""
    stock(w.a, w.b, KEYS_LEFT + 1 - w.a.stored())
    assert w.a.stored() == KEYS_LEFT + 1


# -- Priority ---------------------------------------------------------------------------------------------------------


def test_when_keys_are_scarce_the_stream_of_higher_priority_goes_first(tmp_path):
    async def act(w):
        low, high = await opened(w, replace(QOS, priority=1)), await opened(w, replace(QOS, priority=7))
        await settled(w)
        index = await exhausted(w, low, high)
        one_more(w)  # both asked in vain: it is for the higher one, whoever asks first
        first = await w.one.get_key(low, index[low])
        second = await w.one.get_key(high, index[high])
        assert (first.status, second.status) == (Status.INSUFFICIENT_KEY, Status.SUCCESSFUL)

    run(act, tmp_path, keys=24)


def test_a_stream_that_stopped_asking_keeps_nothing_from_others(tmp_path):
    async def act(w):
        low, high = await opened(w, replace(QOS, priority=1)), await opened(w, replace(QOS, priority=7))
        await settled(w)
        index = await exhausted(w, low, high)
        one_more(w)
        assert (await w.one.get_key(low, index[low])).status is Status.INSUFFICIENT_KEY
        w.clock.advance(PATIENCE_S)
        assert (await w.one.get_key(low, index[low])).status is Status.SUCCESSFUL

    run(act, tmp_path, keys=24)


def test_a_closed_stream_keeps_nothing_from_others(tmp_path):
    async def act(w):
        low, high = await opened(w, replace(QOS, priority=1)), await opened(w, replace(QOS, priority=7))
        await settled(w)
        index = await exhausted(w, low, high)
        assert (await w.one.close_stream(high)).status is Status.SUCCESSFUL
        one_more(w)
        assert (await w.one.get_key(low, index[low])).status is Status.SUCCESSFUL

    run(act, tmp_path, keys=24)
