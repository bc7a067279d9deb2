"""A fault at each send and at each durable step: the link comes back by itself and both stores agree."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from link_pair import link_pair, running, settled, until

from heliograph.errors import StoreUnavailable, TransportClosed
from heliograph.transport.tcp import TcpTransport

pytestmark = pytest.mark.slow  # real processes or real time: `make test` runs it


@pytest.fixture
def room():
    with tempfile.TemporaryDirectory(prefix="hge") as name:
        yield Path(name)


class Once:
    """Fails its ``number``-th call from when it is armed."""

    def __init__(self, number):
        self.left = number
        self.fired = False

    def __call__(self):
        if self.fired:
            return False
        self.left -= 1
        self.fired = self.left < 0
        return self.fired


async def scene(room, spoil):
    async with link_pair(room) as (tx, rx):
        once = spoil(tx, rx)
        async with running(tx, rx):
            await until(lambda: once.fired)
            made = len(tx.committed())
            await until(lambda: len(tx.committed()) >= made + 2)
            # Rest: enough keys, so that no further block begins and the last ones end.
            tx.link._hooks = type(tx.link._hooks)(lambda: 10**9, tx.store.probe, tx.store.destroy_all)
            await until(lambda: settled(tx, rx))
        assert tx.store.records.marks().epoch == rx.store.records.marks().epoch == 1
        assert tx.committed() == rx.committed()


@pytest.mark.parametrize("number", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 24, 4))])
def test_a_connection_that_ends_at_any_send_is_taken_up_again(room, monkeypatch, number):
    send = TcpTransport.send

    def spoil(_tx, _rx):
        once = Once(number)

        async def cut(self, frame):
            if once():
                self.abort()
                raise TransportClosed("cut by the test")
            await send(self, frame)

        monkeypatch.setattr(TcpTransport, "send", cut)
        return once

    asyncio.run(scene(room, spoil))


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["tx", "rx"])
@pytest.mark.parametrize("call", ["persist", "burn", "attempt", "accepted", "discard"])
def test_a_store_that_fails_at_any_durable_step_is_believed_and_nothing_else(room, monkeypatch, name, call, when):
    """With "after" the step is on the disk, only the answer is lost. The machines forget, the store is the truth."""

    def spoil(tx, rx):
        once = Once(0)
        end = tx if name == "tx" else rx
        where = end.commits if call == "persist" else end.store.records
        honest = getattr(where, call)

        def failing(*arguments, **named):
            if when == "after":
                result = honest(*arguments, **named)
            if once():
                raise StoreUnavailable("spoilt by the test")
            return result if when == "after" else honest(*arguments, **named)

        monkeypatch.setattr(where, call, failing)
        if call == "discard":  # a discard needs a reason: the module is gone for one block
            module = end.link._parts.module
            method = "emit" if name == "tx" else "collect"
            gone = Once(0)
            use = getattr(module, method)

            async def absent(*arguments):
                if gone():
                    raise TransportClosed("no light for the test")
                return await use(*arguments)

            monkeypatch.setattr(module, method, absent)
        return once

    asyncio.run(scene(room, spoil))


@pytest.mark.parametrize("number", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4))])
@pytest.mark.parametrize("name", ["tx", "rx"])
def test_each_record_of_the_commit_protocol_may_fail_to_be_written(room, monkeypatch, name, number):
    def spoil(tx, rx):
        once = Once(number)
        commits = (tx if name == "tx" else rx).commits
        honest = commits.persist

        def failing(record):
            if once():
                raise StoreUnavailable("spoilt by the test")
            honest(record)

        monkeypatch.setattr(commits, "persist", failing)
        return once

    asyncio.run(scene(room, spoil))


def test_a_bug_in_a_job_costs_its_block_and_says_no_more_than_its_kind(room, monkeypatch, capsys):
    def spoil(tx, _rx):
        once = Once(3)
        honest = tx.link._parts.compute.run

        def broken():
            raise ValueError("key material: 00ff00ff")

        async def run(job):
            return await honest(replace(job, function=broken, arguments=()) if once() else job)

        monkeypatch.setattr(tx.link._parts.compute, "run", run)
        return once

    asyncio.run(scene(room, spoil))
    shown = capsys.readouterr()
    assert "00ff00ff" not in shown.out + shown.err
