"""A node that dies at any of its durable steps: keys may be lost, none is on one side only, none is given out twice."""

import asyncio

import pytest
from dealt_network import dealt_network

from heliograph.errors import HeliographError, KeyNotFound, RemoteProtocolError
from heliograph.lab.network_layout import NetworkPlan
from heliograph.network.stocks import PathBook
from heliograph.storage.key_rows import DELIVERABLE

pytestmark = pytest.mark.slow  # real stores, sockets and TLS

CHAIN = NetworkPlan.around(1, threshold=1)
STEPS = [
    ("node-a", "use", 0),
    ("node-a", "pay", 0),
    ("node-a", "release", 0),
    ("node-r", "use", 0),  # the message's own keys
    ("node-r", "use", 1),  # its pads
    ("node-r", "use", 2),  # those of the next hop
    ("node-c", "use", 0),
    ("node-c", "use", 1),
    ("node-c", "hold", 0),
]


class DiedError(Exception):
    """The process is gone."""


def die_at(net, name, step, which, *, after):
    """Let a node stop working for ever at the ``which``-th call of a step, before it or after it is on the disk."""
    relayed = net.nodes[name].parts.relayed
    real, calls, dead = getattr(relayed, step), [], []

    def dying(*arguments):
        if dead:
            raise DiedError
        calls.append(step)
        if len(calls) <= which:
            return real(*arguments)
        dead.append(name)
        if after:
            real(*arguments)
        raise DiedError

    setattr(relayed, step, dying)


def rows(net, name):
    with net.nodes[name]._keys._database.reading() as cursor:
        return {
            key_id: (owner, state)
            for key_id, owner, state in cursor.execute("SELECT key_id, owner_here, state FROM key_records").fetchall()
        }


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("name", "step", "which"), STEPS)
def test_a_crash_loses_keys_at_most(tmp_path, name, step, which, after):
    async def scenario():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # a dead server's task
        async with dealt_network(tmp_path, CHAIN) as net:
            await net.transfer(2)
            die_at(net, name, step, which, after=after)
            try:
                await net.transfer(2)
                died = False
            except (HeliographError, DiedError):
                died = True
            assert died
            await net.stop(name)
            await net.open(name)
            # (1) What the origin would hand out is at the target.
            here, there = rows(net, "node-a"), rows(net, "node-c")
            ready = [key_id for key_id, found in here.items() if found == (1, DELIVERABLE)]
            assert set(ready) <= {key_id for key_id, found in there.items() if found == (0, DELIVERABLE)}
            assert len(ready) == (4 if (step, after) == ("release", True) else 2)
            # (2) The network goes on by itself, and every key is given out once at each end.
            for node in net.nodes.values():
                for neighbour in node.parts.neighbours.values():
                    neighbour.client._failures = 0
            net.nodes["node-a"].origin.books["sae-node-a", "sae-node-c"] = PathBook()
            await net.transfer(2)
            async with net.sae("node-a") as a, net.sae("node-c") as c:
                keys = await a.get_keys(len(ready) + 2)
                assert len({key.material for key in keys}) == len(keys)
                for key in keys:
                    assert await c.get_key_with_id(key.key_id) == key
                    with pytest.raises(KeyNotFound):
                        await c.get_key_with_id(key.key_id)
            # (3) No key of a link was used twice: each name stands once in what the two ends remember.
            check_no_key_was_used_twice(net)

    asyncio.run(scenario())


def check_no_key_was_used_twice(net):
    for name in net.nodes:
        with net.nodes[name]._keys._database.reading() as cursor:
            used = cursor.execute("SELECT link, key_id FROM network_used_keys").fetchall()
        assert len(set(used)) == len(used) > 0


def test_a_key_manager_that_gives_a_key_twice_is_found_before_anything_is_sent_under_it(tmp_path):
    """A vendor's device that was put back from a backup, say."""

    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            link = net.nodes["node-a"].parts.neighbours["node-r"].link
            honest, given = link.draw, []

            async def again(number):
                if not given:
                    given.extend(await honest(number))
                return given

            link.draw = again
            await net.transfer(1)
            carried = net.nodes["node-r"].relay.carried
            await net.stop("node-a")
            await net.open("node-a")
            net.nodes["node-a"].parts.neighbours["node-r"].link.draw = again
            await net.nodes["node-a"].parts.neighbours["node-r"].link.look()
            with pytest.raises(HeliographError, match="used before"):
                await net.transfer(1)
            assert net.nodes["node-r"].relay.carried == carried
            with pytest.raises(RemoteProtocolError):
                net.nodes["node-a"].parts.relayed.use("node-a - node-r", [given[0].key_id])

    asyncio.run(scenario())
