"""Agents that are cut from their key managers and from each other: they fail closed, agree, and come back."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest

from heliograph.lab.cut_agents import AGENTS, KEYS, TUNNEL, CutAgents

pytestmark = pytest.mark.slow  # real sockets, TLS and seconds: `make test` runs it


@contextlib.asynccontextmanager
async def running():
    with tempfile.TemporaryDirectory(prefix="hga") as name:
        agents = CutAgents(Path(name))
        try:
            async with asyncio.timeout(60):
                await agents.start()
                yield agents
        finally:
            await agents.close()


async def until(condition):
    while not condition():  # noqa: ASYNC110  - other tasks of this loop make it true
        await asyncio.sleep(0)


def cut(relays, **how):
    for relay in relays:
        relay.cut(**how)


def heal(relays):
    for relay in relays:
        relay.heal()


@pytest.mark.parametrize(
    ("pair", "how"),
    [
        (KEYS, {"hard": False, "back": False}),
        pytest.param(KEYS, {"hard": True}, marks=pytest.mark.soak),
        pytest.param(KEYS, {"hard": False, "onward": False, "lost": True}, marks=pytest.mark.soak),
        pytest.param(AGENTS, {"hard": False, "back": False}, marks=pytest.mark.soak),
        pytest.param(AGENTS, {"hard": False, "onward": False, "lost": True}, marks=pytest.mark.soak),
    ],
)
def test_a_tunnel_that_gets_no_fresh_key_sends_nothing_and_comes_back_by_itself(pair, how):
    async def scene():
        async with running() as agents:
            cut(agents.relays[pair], **how)
            await until(lambda: all(agent.status().mode == "fail-closed" for agent in agents.agents))
            stopped = [agent.status().sent_bytes for agent in agents.agents]
            await asyncio.sleep(0)
            assert [agent.status().sent_bytes for agent in agents.agents] == stopped
            heal(agents.relays[pair])
            await agents.more(pair)
            await agents.close()
            found = agents.findings()
            assert found.harmless, found
            assert found.closed >= 1
            assert found.payloads >= 2

    asyncio.run(scene())


@pytest.mark.soak
def test_a_tunnel_whose_connections_are_lost_carries_new_ones():
    async def scene():
        async with running() as agents:
            cut(agents.relays[TUNNEL], hard=False, lost=True)
            heal(agents.relays[TUNNEL])
            await agents.more(TUNNEL)
            await agents.close()
            assert agents.findings().harmless

    asyncio.run(scene())


def test_what_must_not_be_is_seen():
    """A key taken from one end while the other sends under it, a payload on the wire in clear, a key given twice."""

    async def scene():
        async with running() as agents:
            responder, initiator = (agent.forwarder.keyring for agent in agents.agents)
            await until(lambda: initiator.sending is not None and responder.holds(initiator.sending.key_id))
            responder.retire(initiator.sending.key_id)
            await until(lambda: agents.seen.under_unknown_key)
            given = agents.sources[0].key_ids
            given.append(given[0])
            await agents.close()
            with agents.taps[1].files[0].open("ab") as wire:
                wire.write(agents.payload[:1000])
            found = agents.findings()
            assert not found.harmless
            assert found.duplicates == 1
            assert found.bytes_in_clear >= 1000

    asyncio.run(scene())
