"""Keys over trusted nodes: real stores, sockets and TLS; what an honest relay does, and what a fault leaves."""

import asyncio

import pytest
from dealt_network import dealt_network

from heliograph.errors import AuthenticationFailed, InsufficientKeys, KeyNotFound, KeySupplyError
from heliograph.kme.key_facts import KeyFacts
from heliograph.lab.network_layout import NetworkPlan
from heliograph.network.stocks import VENDOR

pytestmark = pytest.mark.slow  # real stores, sockets and TLS

CHAIN = NetworkPlan.around(1, threshold=1)


def run(scenario):
    return asyncio.run(scenario)


def test_a_key_crosses_a_relay_and_is_delivered_once_at_each_end(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            made = await net.transfer(4)
            async with net.sae("node-a") as a, net.sae("node-c") as c:
                keys = await a.get_keys(4)
                assert {key.key_id for key in keys} == set(made)
                with pytest.raises(InsufficientKeys):
                    await a.get_key()
                assert [await c.get_key_with_id(key.key_id) for key in keys] == keys
                with pytest.raises(KeyNotFound):
                    await c.get_key_with_id(keys[0].key_id)

    run(scenario())


def test_both_ends_own_keys_of_their_own(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            await net.transfer(2, "node-a")
            await net.transfer(2, "node-c")
            async with net.sae("node-a") as a, net.sae("node-c") as c:
                from_a, from_c = await a.get_keys(2), await c.get_keys(2)
                assert not {key.material for key in from_a} & {key.material for key in from_c}
                assert [await a.get_key_with_id(key.key_id) for key in from_c] == from_c

    run(scenario())


def test_keys_of_links_are_taken_once_and_their_cost_is_told(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            before = net.stocks()
            await net.transfer(4)
            after = net.stocks()
            # 32 bytes of the acknowledgement's key, 4 of 32, and 48 of the proof: 7 pads of 32, and two keys for tags.
            taken = {way: before[way] - after[way] for way in before}
            assert taken == {"node-a to node-r": 9, "node-r to node-a": 0, "node-r to node-c": 9, "node-c to node-r": 0}
            (pair,) = (await net.nodes["node-a"].status()).pairs
            assert pair.delivered_bits == 4 * 256
            assert pair.paid_bits == {"node-a - node-r": 9 * 256, "node-c - node-r": 9 * 256}
            assert pair.cost_per_bit == {"node-a - node-r": 2.25, "node-c - node-r": 2.25}
            assert pair.paths == {"node-a - node-r - node-c": "open, 111 keys at its scarcest hop"}
            assert (await net.nodes["node-r"].status()).carried == 1

    run(scenario())


def test_metadata_names_the_path_and_what_the_keys_rest_on(tmp_path):
    async def scenario(directory, assurance):
        async with dealt_network(directory, CHAIN, assurance=assurance) as net:
            await net.transfer(1)
            node = net.nodes["node-a"]
            (key,) = node.supply.enc_keys("sae-node-a", "sae-node-c", 1)
            facts = KeyFacts(0.0, node.supply.path)
            return facts.of(key), facts.container([key])

    path = ["node-a", "node-r", "node-c"]
    for name, assurance in (("i", "information-theoretic"), ("v", VENDOR)):
        key, container = run(scenario(tmp_path / name, assurance))
        assert container == {"heliograph_path": path}
        assert (key["heliograph_protocol"], key["heliograph_paths"]) == ("relay", [path])
        assert key["heliograph_assurance"] == assurance


def test_keys_that_are_less_than_the_link_promises_are_not_drawn(tmp_path):
    """The node demands what its file says; a key manager whose keys are weaker gives none."""

    async def scenario():
        async with dealt_network(tmp_path, CHAIN, assurance="computational") as net:
            link = net.nodes["node-a"].parts.neighbours["node-r"].link
            link.assurance = "information-theoretic"
            before = net.stocks()
            with pytest.raises(AuthenticationFailed, match="options could be met"):
                await net.transfer(1)
            assert net.stocks() == before

    run(scenario())


def test_without_key_on_the_second_hop_nothing_is_delivered(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN, keys=10) as net:
            await net.transfer(4)
            net.link("node-a", "node-r").deal(20)
            with pytest.raises(AuthenticationFailed, match="no key now"):
                await net.transfer(4)
            assert await net.ready() == 4
            assert net.nodes["node-c"].parts.relayed.delivered_bits(("sae-node-c", "sae-node-a")) == 0
            (pair,) = (await net.nodes["node-a"].status()).pairs
            assert pair.paid_bits == {"node-a - node-r": 18 * 256, "node-c - node-r": 9 * 256}
            # The path is left alone for a while: whoever cuts it does not drain the first link.
            with pytest.raises(InsufficientKeys, match="0 of 1 paths"):
                await net.transfer(4)

    run(scenario())


def test_a_relay_carries_only_between_ends_it_was_told_of(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            await net.stop("node-r")
            text = net.files["node-r"].read_text()
            net.files["node-r"].write_text(text.replace('carries = [["node-a", "node-c"]]', "carries = []"))
            await net.open("node-r")
            before = net.stocks()["node-r to node-c"]
            with pytest.raises(AuthenticationFailed, match="carries nothing"):
                await net.transfer(1)
            assert net.stocks()["node-r to node-c"] == before

    run(scenario())


@pytest.mark.parametrize("gone", ["node-r", "node-c"])
def test_a_node_that_is_down_costs_keys_and_nothing_else(tmp_path, gone):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            await net.stop(gone)
            with pytest.raises(AuthenticationFailed):
                await net.transfer(2)
            assert await net.ready() == 0
            # Nobody answered at the next node: of that link not one key was taken.
            last = ("node-a to node-r", 120) if gone == "node-r" else ("node-r to node-c", 120)
            assert net.stocks()[last[0]] == last[1]

    run(scenario())


def test_keys_survive_a_restart_of_both_ends(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            await net.transfer(2)
            for name in ("node-a", "node-c"):
                await net.stop(name)
                await net.open(name)
            async with net.sae("node-a") as a, net.sae("node-c") as c:
                (first, second) = await a.get_keys(2)
                assert await c.get_key_with_id(second.key_id) == second
                await net.stop("node-c")
                await net.open("node-c")
            async with net.sae("node-c") as c:
                with pytest.raises(KeyNotFound):
                    await c.get_key_with_id(second.key_id)
                assert await c.get_key_with_id(first.key_id) == first
            (pair,) = (await net.nodes["node-a"].status()).pairs
            assert pair.delivered_bits == 2 * 256

    run(scenario())


def test_the_stock_is_kept_and_not_exceeded(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            origin = net.nodes["node-a"].origin
            await origin.tick()
            assert await net.ready() == CHAIN.stock
            before = net.stocks()
            await origin.tick()
            assert net.stocks() == before
            async with net.sae("node-a") as a:
                await a.get_keys(3)
            await origin.tick()
            assert await net.ready() == CHAIN.stock

    run(scenario())


def test_another_certificate_gets_no_relayed_key(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            await net.transfer(1)
            async with net.sae("node-a") as a:
                a._keys = a._keys.replace("sae-node-c", "sae-other")
                with pytest.raises(KeySupplyError):
                    await a.get_key()
            assert await net.ready() == 1

    run(scenario())
