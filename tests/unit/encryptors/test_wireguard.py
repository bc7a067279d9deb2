"""WireGuard under keys of the link: the real program in two namespaces, and a table that cannot work."""

from __future__ import annotations

import asyncio

import pytest
from agent_pair import AgentPair
from wireguard_pair import Gateways, require_wireguard, run

from heliograph.agent.agent import Agent
from heliograph.agent.config import AgentConfig
from heliograph.errors import ConfigurationError


class Pair(AgentPair):
    def __init__(self, gateways: Gateways) -> None:
        super().__init__()
        self.gateways = gateways

    def agent(self, side, role, control, source):
        entry = {"role": role, "control": control, "wireguard": self.gateways.table(side)}
        return Agent(AgentConfig.from_mapping(entry), source, self.clock)

    async def encrypting(self) -> None:
        await self.until(lambda: self.a.status().mode == self.b.status().mode == "encrypting")


@pytest.fixture(scope="module")
def gateways():
    require_wireguard()
    with Gateways() as pair:
        yield pair


def test_a_real_tunnel_opens_under_the_links_key_rotates_and_shuts_with_the_agents(gateways):
    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            assert gateways.passes()
            first = gateways.preshared(0)
            assert first == gateways.preshared(1)
            before = pair.a.status().key_id
            pair.clock.ahead += 61
            await pair.until(lambda: pair.a.status().rekeys == pair.b.status().rekeys == 1)
            await pair.encrypting()
            assert gateways.passes()
            assert gateways.preshared(0) == gateways.preshared(1) != first
            assert pair.a.status().key_id == pair.b.status().key_id != before
            assert pair.a.status().alarm is None
            assert pair.b.status().alarm is None
        assert gateways.preshared(0) != gateways.preshared(1)  # random, each side its own
        assert not gateways.passes(tries=3)

    asyncio.run(scenario())


def test_a_real_tunnel_out_of_step_is_repaired_by_the_next_rotation(gateways):
    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            wrong = run("wg", "genpsk")
            peer, name = gateways.public[0], gateways.interfaces[1]
            run("wg", "set", name, "peer", peer, "remove", "peer", peer, "preshared-key", "/dev/stdin", given=wrong)
            run("wg", "set", name, "peer", peer, "allowed-ips", "10.77.0.0/24", "endpoint", "192.0.2.1:51820")
            assert not gateways.passes(tries=2)
            pair.clock.ahead += 61
            await pair.until(lambda: pair.b.status().rekeys == 1)
            await pair.encrypting()
            assert gateways.passes()
            assert gateways.preshared(0) == gateways.preshared(1) != wrong

    asyncio.run(scenario())


def test_a_real_tunnel_shuts_when_its_key_is_too_old(gateways):
    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            used = gateways.preshared(0)
            pair.keys.stock = 0
            pair.clock.ahead += 301
            await pair.until(lambda: pair.a.status().key_id is pair.b.status().key_id is None)
            assert pair.a.status().mode == pair.b.status().mode == "fail-closed"
            # ``wg`` is ordered off the agent's loop: it may be under way still.
            await pair.until(lambda: used not in (gateways.preshared(0), gateways.preshared(1)))
            assert not gateways.passes(tries=3)
            pair.keys.stock = 10
            pair.clock.ahead += 11
            await pair.encrypting()
            assert gateways.passes()

    asyncio.run(scenario())


def test_an_interface_deleted_under_the_agent_is_an_alarm_and_comes_back_by_itself(gateways):
    async def scenario():
        async with Pair(gateways) as pair:
            await pair.encrypting()
            gateways.delete(1)
            pair.clock.ahead += 1
            await pair.until(lambda: pair.b.status().mode == "fail-closed")
            assert gateways.interfaces[1] in pair.b.status().alarm
            assert "create it again" in pair.b.status().alarm
            gateways.start(1)
            pair.clock.ahead += 61
            await pair.encrypting()
            assert gateways.passes()
            assert pair.b.status().alarm is None

    asyncio.run(scenario())


PEER = "A" * 43 + "="


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"interface": "wg0; reboot"}, "interface"),
        ({"peer": "nobody"}, "public key"),
        ({"allowed_ips": []}, "allowed_ips"),
        ({"allowed_ips": ["10.0.0.1/8"]}, "allowed_ips"),
        ({"endpoint": None}, "endpoint"),
        ({"endpoint": "there"}, "address"),
        ({"keepalive": 0}, "keepalive"),
        ({"endpiont": "192.0.2.2:51820"}, "endpiont"),
    ],
    ids=str,
)
def test_a_table_that_cannot_work_is_refused_by_name(change, named):
    table = {"interface": "wg0", "peer": PEER, "allowed_ips": ["10.2.0.0/24"], "endpoint": "192.0.2.2:51820"}
    document = {"role": "initiator", "control": "127.0.0.1:1", "wireguard": table}
    AgentConfig.from_mapping(document)
    with pytest.raises(ConfigurationError, match=named):
        AgentConfig.from_mapping(document | {"wireguard": table | change})


@pytest.mark.parametrize(
    "change",
    [
        {"targets": {"x": "127.0.0.1:1"}, "outer_listen": "127.0.0.1:0"},
        {"cipher": "chacha20-poly1305"},
        {"cipher": "wireguard", "wireguard": None},
        {"rekey_seconds": 5.0},
    ],
    ids=str,
)
def test_wireguard_beside_what_does_not_go_with_it_is_refused(change):
    table = {"interface": "wg0", "peer": PEER, "allowed_ips": ["10.2.0.0/24"], "endpoint": "192.0.2.2:51820"}
    with pytest.raises(ConfigurationError):
        AgentConfig.from_mapping({"role": "initiator", "control": "127.0.0.1:1", "wireguard": table} | change)
