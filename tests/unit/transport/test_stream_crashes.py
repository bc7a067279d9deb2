"""Key streams and a store that fails at any one transaction, before or after it became durable, at either site."""

import asyncio
import contextlib
from contextlib import AsyncExitStack

import pytest
from two_stream_sites import two_sites

from heliograph.errors import TransportClosed
from heliograph.kme.etsi004 import Qos, Status
from heliograph.testing.failing_store import FailingTransaction

QOS = Qos(64, ttl_s=600)
SOURCE, DESTINATION = "sae:sae-a", "sae:sae-b"
INDICES = range(4)


async def scenario(a, b, delivered):
    """Open, fetch and close at both ends, noting every key that an application got hold of. Calls may fail."""
    async with AsyncExitStack() as stack:
        apps = {site.name: await stack.enter_async_context(site.app()) for site in (a, b)}
        opened = None
        for _ in range(3):
            for name in ("a", "b", "a"):
                with contextlib.suppress(TransportClosed):
                    ksid = opened.ksid if opened else bytes(16)
                    reply = await apps[name].open_connect(SOURCE, DESTINATION, QOS, ksid)
                    if reply.status in {Status.SUCCESSFUL, Status.PEER_NOT_CONNECTED}:
                        opened = reply
            a.clock.advance(120)  # attempts that were put off are due again
        assert opened is not None
        for index in INDICES:
            for name, app in apps.items():
                for _ in range(3):
                    with contextlib.suppress(TransportClosed):
                        reply = await app.get_key(opened.ksid, index)
                        if reply.status is Status.SUCCESSFUL:
                            delivered.append((name, index, reply.key))


def check(delivered, *, lost_at_most):
    assert len({(name, index) for name, index, _ in delivered}) == len(delivered), "a chunk was delivered twice"
    by_index = {}
    for _, index, key in delivered:
        by_index.setdefault(index, set()).add(key)
    assert all(len(keys) == 1 for keys in by_index.values()), "an index meant two keys"
    assert len({key for keys in by_index.values() for key in keys}) == len(by_index), "two indices meant one key"
    assert len(delivered) >= 2 * len(INDICES) - lost_at_most


@pytest.mark.slow  # every transaction in turn
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("where", ["a", "b"])
def test_a_failure_at_any_transaction_loses_little_and_repeats_nothing(tmp_path, where, durable):
    async def act(number, directory):
        delivered = []
        async with two_sites(directory) as (a, b, _):
            fault = FailingTransaction({"a": a, "b": b}[where].database, number, durable=durable)
            await scenario(a, b, delivered)
        return fault.reached, delivered

    number, reached = 1, True
    while reached:
        directory = tmp_path / str(number)
        directory.mkdir()
        reached, delivered = asyncio.run(act(number, directory))
        check(delivered, lost_at_most=2 if reached else 0)
        number += 1
    assert number > 20
