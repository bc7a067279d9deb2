"""kill -9 of any node while keys are on their way: the nodes are processes, the links' key managers live here."""

import asyncio
import signal

import pytest

from heliograph.errors import HeliographError, KeyNotFound
from heliograph.lab.dealt_links import DealtLink
from heliograph.lab.network import NetworkRehearsal
from heliograph.lab.network_layout import NetworkPlan, lay_out
from heliograph.network.stocks import VENDOR
from heliograph.vault.randomness import SystemRandomness

pytestmark = pytest.mark.soak  # real processes, half a minute; unit/node crashes each durable step in one process

PLAN = NetworkPlan.around(1, threshold=1, layer="ml-kem-768")
ROUNDS = 6
PATIENCE_S = 120


async def eventually(call, wanted):
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if wanted(found := await call()):
                    return found
            except HeliographError:  # not there again yet
                pass
            await asyncio.sleep(0.05)


async def scenario(directory):
    links, access = {}, {}
    try:
        for one, other in PLAN.edges:
            link = links[one, other] = DealtLink(directory / f"{one}--{other}", (one, other), SystemRandomness())
            await link.start(600)
            access |= {(one, other): link.access(one, VENDOR), (other, one): link.access(other, VENDOR)}
        network = NetworkRehearsal(directory, lay_out(directory, PLAN, access))
        try:
            await network.start_all()
            return await rounds(network, links)
        finally:
            await network.stop_all()
    finally:
        for link in links.values():
            await link.close()


async def rounds(network, links):
    a_to_r, r_to_c = links["node-a", "node-r"], links["node-r", "node-c"]

    async def drawn():
        return a_to_r.keys["node-a"].stored_key_count("node-a", "node-r"), r_to_c.keys["node-r"].stored_key_count(
            "node-r", "node-c"
        )

    taken = []
    async with network.client("node-a", "node-c") as a, network.client("node-c", "node-a") as c:
        for number in range(ROUNDS):
            await eventually(a.status, lambda found: found.stored_key_count >= 4)
            before = await drawn()
            taken += await a.get_keys(4)
            # A transfer is under way as soon as keys of a link are gone; the next one to die changes each time.
            where = number // 3 % 2
            await eventually(drawn, lambda now, before=before, where=where: now[where] < before[where])
            victim = PLAN.nodes[number % 3]
            await network.stop(victim, signal.SIGKILL)
            await network.start(victim)
        waiting = await eventually(a.status, lambda found: found.stored_key_count >= PLAN.stock)
        taken += await a.get_keys(waiting.stored_key_count)
        for key in taken:
            assert await eventually(lambda key=key: c.get_key_with_id(key.key_id), lambda _: True) == key
            with pytest.raises(KeyNotFound):
                await c.get_key_with_id(key.key_id)
    return taken


def test_whichever_node_is_killed_every_key_is_at_both_ends_once(tmp_path):
    taken = asyncio.run(scenario(tmp_path))
    assert len(taken) >= 4 * ROUNDS + PLAN.stock
    assert len({key.key_id for key in taken}) == len({key.material for key in taken}) == len(taken)
