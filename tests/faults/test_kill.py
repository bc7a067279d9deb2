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
    marks = dict.fromkeys(SITES, (0, 0))
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


@pytest.mark.slow
def test_a_killed_site_comes_back_and_nothing_is_used_twice():
    asyncio.run(survive(points=4, seed=1))


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
def test_both_sites_killed_at_random_moments_over_and_over(seed):
    asyncio.run(survive(points=25, seed=seed))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 20))
def test_a_thousand_kills_at_random_moments(seed):
    asyncio.run(survive(points=100, seed=seed))


@pytest.mark.slow
def test_a_dark_fibre_does_not_drain_the_pads_and_light_heals_the_link():
    """Every block without light costs a pad set: while blocks fail, fewer and fewer are tried."""

    async def scene():
        rehearsal = small_blocks()
        try:
            await rehearsal.start_all()
            for _ in range(3):
                await new_block(rehearsal)
            before = (await rehearsal.status("site_a")).link
            await rehearsal.stop("fibre", signal.SIGKILL)
            await asyncio.sleep(6.0)
            dark = (await rehearsal.status("site_a")).link
            assert 3 <= dark.blocks_discarded - before.blocks_discarded <= 12
            assert dark.pad_sets >= 3
            # What the site's own module says, or what the other site said of its own.
            assert "QKD module" in dark.last_discard or "ModuleFailed" in dark.last_discard
            assert dark.epoch == 1
            await rehearsal.start("fibre")
            await new_block(rehearsal)
        finally:
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(scene())


@pytest.mark.slow
@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_a_site_ends_within_two_seconds_while_it_computes(name, times):
    async def scene():
        rehearsal = small_blocks()
        loop = asyncio.get_running_loop()
        try:
            await rehearsal.start_all()
            await new_block(rehearsal)
            started_in = 0.0
            for _ in range(times):
                process = rehearsal.processes[name]
                began = loop.time()
                await rehearsal.stop(name)
                # Starting takes half a second of a processor: where it took longer than two, the machine is busy.
                assert loop.time() - began < max(2.0, started_in)
                assert process.returncode == 0
                began = loop.time()
                await rehearsal.start(name)
                started_in = loop.time() - began
                await new_block(rehearsal)
            for site in SITES:
                log = (rehearsal.directory / f"{site}.log").read_text()
                for words in (
                    "Traceback",
                    "never awaited",
                    "never retrieved",
                    "destroyed but it is pending",
                    "Unclosed",
                ):
                    assert words not in log
        finally:
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(scene())
