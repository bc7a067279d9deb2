"""Calls that wait for the store: who went away is not served, and takes nobody else along."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from heliograph.errors import StoreUnavailable
from heliograph.http import store_groups
from heliograph.http.store_groups import GROUP_MAX, StoreGroups


class Runner:
    """Runs calls as the store does; the first group waits until it is told to go on."""

    def __init__(self):
        self.go, self.sizes = threading.Event(), []

    def __call__(self, calls):
        assert self.go.wait(30)
        self.sizes.append(len(calls))
        return [call() for call in calls]


def play(act):
    async def main():
        with ThreadPoolExecutor(1) as executor:
            runner = Runner()
            try:
                return await act(StoreGroups(executor, runner), runner)
            finally:
                runner.go.set()

    return asyncio.run(main())


async def begun(groups, calls):
    tasks = [asyncio.create_task(groups.run(call)) for call in calls]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def test_a_waiter_that_was_cancelled_is_not_served_and_the_others_are():
    done = []

    async def act(groups, runner):
        first = await begun(groups, [lambda: done.append("first")])
        waiting = await begun(groups, [lambda n=n: done.append(n) for n in range(4)])
        waiting[1].cancel()
        waiting[2].cancel()
        runner.go.set()
        return await asyncio.gather(*first, *waiting, return_exceptions=True), runner.sizes

    outcomes, sizes = play(act)
    assert done == ["first", 0, 3]
    assert sizes == [1, 2]
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [False, False, True, True, False]


def test_a_group_of_which_all_went_away_costs_no_turn_of_the_store():
    async def act(groups, runner):
        first = await begun(groups, [lambda: 1])
        waiting = await begun(groups, [lambda: 2, lambda: 3])
        for task in waiting:
            task.cancel()
        runner.go.set()
        await asyncio.gather(*first, *waiting, return_exceptions=True)
        return await groups.run(lambda: 4), runner.sizes

    assert play(act) == (4, [1, 1])


def test_who_goes_away_while_the_store_has_its_call_leaves_the_others_their_answers():
    async def act(groups, runner):
        tasks = await begun(groups, [lambda: 1, lambda: 2])
        tasks[0].cancel()
        runner.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    gone, other = play(act)
    assert isinstance(gone, asyncio.CancelledError)
    assert other == 2


def test_a_runner_that_fails_tells_every_caller_and_the_next_group_goes_on():
    async def act(groups, runner):
        runner.go.set()
        first = await begun(groups, [lambda: 1])
        await asyncio.gather(*first)

        def broken(_):
            groups._run = runner
            raise StoreUnavailable("the disk is full")

        groups._run = broken
        failed = await asyncio.gather(*(await begun(groups, [lambda: 2, lambda: 3])), return_exceptions=True)
        return failed, await groups.run(lambda: 4)

    failed, after = play(act)
    assert [type(outcome) for outcome in failed] == [StoreUnavailable] * 2
    assert after == 4


@pytest.mark.parametrize("many", [GROUP_MAX, GROUP_MAX + 1, 3 * GROUP_MAX])
def test_no_group_is_larger_than_its_bound(many):
    async def act(groups, runner):
        first = await begun(groups, [lambda: 0])
        waiting = await begun(groups, [lambda n=n: n for n in range(many)])
        runner.go.set()
        return await asyncio.gather(*first, *waiting), runner.sizes

    answers, sizes = play(act)
    assert answers == [0, *range(many)]
    assert max(sizes) <= GROUP_MAX
    assert sum(sizes) == many + 1


class Left:
    """A store that left something for later."""

    def __init__(self):
        self.unsettled, self.done = True, threading.Event()

    def settle(self):
        self.unsettled = False
        self.done.set()


def test_what_a_group_left_is_done_soon_after_its_answers(monkeypatch):
    monkeypatch.setattr(store_groups, "SETTLE_SECONDS", 0.0)
    left = Left()

    async def main():
        with ThreadPoolExecutor(1) as executor:
            groups = StoreGroups(executor, lambda calls: [call() for call in calls], left)
            assert await groups.run(lambda: left.unsettled)  # the answer did not wait for it
            return await asyncio.to_thread(left.done.wait, 30)

    assert asyncio.run(main())


def test_a_closed_server_leaves_the_rest_to_the_closing_of_the_store(monkeypatch):
    monkeypatch.setattr(store_groups, "SETTLE_SECONDS", 0.0)
    left = Left()

    async def main():
        with ThreadPoolExecutor(1) as executor:
            groups = StoreGroups(executor, lambda calls: [call() for call in calls], left)
            await groups.run(lambda: 1)
            groups.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert left.unsettled
