"""kill -9 at any moment: both sites come back by themselves, and nothing is used twice or left on one side only."""

import asyncio
import random
import signal

import pytest
from fault_rehearsal import SITES, Consumers, Store, check_stores, new_block, small_blocks


async def survive(points, seed):
    chance = random.Random(seed)
    rehearsal = small_blocks()
    consumers = Consumers(rehearsal)
    marks = {name: (0, 0) for name in SITES}
    try:
        await rehearsal.start_all()
        consumers.start()
        for _ in range(points):
            # A block takes about a quarter of a second: any stage of it, and the restart of the other site, is hit.
            await asyncio.sleep(chance.uniform(0.0, 0.6))
            name = chance.choice(SITES)
            await rehearsal.stop(name, signal.SIGKILL)
            store = Store.of(rehearsal, name)
            assert (store.epoch, store.touched) >= marks[name], "a mark went back: pads could be used again"
            marks[name] = store.epoch, store.touched
            await rehearsal.start(name)
            await new_block(rehearsal)
        await consumers.stop()
        await rehearsal.stop_all()
        a, b = (Store.of(rehearsal, name) for name in SITES)
        logs = {name: (rehearsal.directory / f"{name}.log").read_text() for name in SITES}
    finally:
        await rehearsal.stop_all()
        rehearsal.remove()
    check_stores(a, b)
    assert consumers.deliveries.check() > points
    for log in logs.values():
        assert "internal error" not in log
        assert "Traceback" not in log
        assert "never retrieved" not in log
    return a, b, consumers.deliveries


def test_a_killed_site_comes_back_and_nothing_is_used_twice():
    asyncio.run(survive(points=4, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_fifty_kills_at_random_moments(seed):
    asyncio.run(survive(points=25, seed=seed))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 20))
def test_a_thousand_kills_at_random_moments(seed):
    asyncio.run(survive(points=100, seed=seed))
