"""Pairs of agents under each key policy: what is in the key, and what happens when the link has none."""

from __future__ import annotations

import asyncio

import pytest
from tunnel_pair import Sites, until

from heliograph.agent.config import AgentConfig
from heliograph.agent.identity import PeerIdentity
from heliograph.errors import ConfigurationError, KeyNotFound
from heliograph.vault.randomness import SystemRandomness

SECRET = b"k" * 32


def identities(a=SECRET, b=SECRET):
    randomness = SystemRandomness()
    return PeerIdentity("sae-a", "sae-b", a, randomness), PeerIdentity("sae-b", "sae-a", b, randomness)


def sites(policy, **settings) -> Sites:
    return Sites(identities=settings.pop("pair", identities()), policy=policy, peer_key="peer.key", **settings)


@pytest.mark.parametrize("combiner", ["hkdf-sha-512", "etsi-catkdf"])
def test_hybrid_keys_carry_traffic_and_rotate(combiner):
    async def scenario():
        async with sites("hybrid-required", combiner=combiner, rekey_bytes=1 << 18) as pair:
            payload = bytes(range(256)) * 8192
            assert await pair.exchange(payload) == b"thank you"
            assert bytes(pair.host.received[0]) == payload
            await pair.settled()
            for agent in (pair.a, pair.b):
                status = agent.status()
                assert status.components == ("qkd", "ml-kem-768", "x25519")
                assert status.mode == "encrypting"
                assert status.rekeys >= 4
                assert status.refused_messages == 0
            assert {str(h.key_id.hex()) for h in pair.relay.headers()} <= {k.replace("-", "") for k in pair.keys.named}

    asyncio.run(scenario())


def test_hybrid_required_sends_nothing_without_a_key_of_the_link():
    async def scenario():
        async with sites("hybrid-required", stock=0) as pair:
            await until(lambda: pair.a.status().last_refusal is not None)
            _, writer = await pair.dial()
            writer.write(b"x" * 1000)
            await writer.drain()
            for _ in range(2000):
                await asyncio.sleep(0)
            assert pair.a.status().mode == pair.b.status().mode == "fail-closed"
            assert pair.relay.seen == []
            assert "no key is left" in pair.a.status().last_refusal
            writer.close()

    asyncio.run(scenario())


def test_qkd_preferred_goes_on_without_the_link_says_so_and_comes_back():
    async def scenario():
        async with sites("qkd-preferred", stock=0, rekey_bytes=1 << 17) as pair:
            assert await pair.exchange(b"a" * 1000) == b"thank you"
            assert pair.a.status().mode == pair.b.status().mode == "without-qkd"
            assert pair.a.status().components == ("ml-kem-768", "x25519")
            pair.keys.stock = 1000
            await pair.exchange(b"b" * (1 << 18))
            await until(lambda: "qkd" in pair.a.status().components and "qkd" in pair.b.status().components)
            assert pair.a.status().mode == pair.b.status().mode == "encrypting"

    asyncio.run(scenario())


def test_qkd_preferred_survives_a_key_manager_that_is_down_at_one_site_only():
    async def scenario():
        pair = sites("qkd-preferred")

        class Down:
            async def get_key_with_id(self, key_id):
                raise KeyNotFound(f"{key_id} is not here")

        pair.source_b = Down()
        async with pair:
            assert await pair.exchange(b"a" * 1000) == b"thank you"
            assert pair.a.status().mode == pair.b.status().mode == "without-qkd"

    asyncio.run(scenario())


class Silent:
    """A key manager that accepts the question and never answers."""

    def __init__(self):
        self.asked = 0

    async def get_key(self):
        self.asked += 1
        await asyncio.get_running_loop().create_future()

    async def get_key_with_id(self, _):
        await self.get_key()


@pytest.mark.parametrize("where", ["source_a", "source_b"])
def test_qkd_preferred_falls_back_from_a_key_manager_that_stays_silent(where):
    async def scenario():
        pair = sites("qkd-preferred")
        silent = Silent()
        setattr(pair, where, silent)
        pair.limits = {"answer_seconds": 0.4}
        async with pair:
            assert await pair.exchange(b"a" * 1000) == b"thank you"
            assert pair.a.status().mode == pair.b.status().mode == "without-qkd"
            assert silent.asked

    asyncio.run(scenario())


def test_qkd_only_waits_for_a_silent_key_manager_no_longer_than_a_fetch_and_asks_again():
    async def scenario():
        pair = Sites()
        pair.source_a = silent = Silent()
        pair.limits = {"fetch_seconds": 0.1, "retry_seconds": 0.01}
        async with pair:
            await until(lambda: silent.asked >= 3)
            assert "did not answer" in pair.a.status().last_refusal
            assert len(pair.a._tasks) < 6  # no question is left hanging
            assert pair.a.status().mode == "fail-closed"

    asyncio.run(scenario())


def test_pqc_only_uses_no_key_of_the_link():
    async def scenario():
        async with sites("pqc-only") as pair:
            assert await pair.exchange(b"a" * 1000) == b"thank you"
            assert pair.keys.named == []
            assert pair.a.status().mode == "without-qkd"

    asyncio.run(scenario())


def test_two_sites_with_different_policies_send_nothing_and_say_which():
    async def scenario():
        pair = sites("hybrid-required")
        async with pair:
            await pair.settled()
            await pair.a.close()
            pair.settings |= {"policy": "pqc-only"}
            await pair.b.close()
            await pair.start_b()
            pair.settings |= {"policy": "hybrid-required"}
            await pair.start_a()
            await until(lambda: pair.b.status().refused_messages >= 1)
            assert "policy" in pair.b.status().last_refusal
            assert pair.a.status().mode == pair.b.status().mode == "fail-closed"

    asyncio.run(scenario())


def test_an_agent_that_asks_for_qkd_only_gets_nothing_from_a_site_that_requires_a_hybrid():
    async def scenario():
        pair = sites("hybrid-required")
        async with pair:
            await pair.a.close()
            pair.settings = {"rekey_bytes": 1 << 20, "policy": "qkd-only"}
            pair.identity_a = None
            await pair.start_a()
            await until(lambda: (pair.b.status().last_refusal or "").startswith("no key was established"))
            assert pair.a.status().mode == pair.b.status().mode == "fail-closed"

    asyncio.run(scenario())


def test_agents_with_different_peer_keys_make_no_key_and_fetch_none_at_the_responder():
    async def scenario():
        async with sites("hybrid-required", pair=identities(b=b"o" * 32)) as pair:
            await until(lambda: pair.b.status().refused_messages >= 1)
            assert "peer_key" in pair.b.status().last_refusal
            assert pair.a.status().mode == pair.b.status().mode == "fail-closed"
            assert len(pair.keys._awaited) == len(pair.keys.named)

    asyncio.run(scenario())


def test_a_replayed_offer_is_not_taken_twice():
    async def scenario():
        async with sites("pqc-only") as pair:
            sent = []
            honest = pair.a._established._send
            pair.a._established._send = lambda message: (sent.append(message), honest(message))
            await until(lambda: pair.a.status().state == "Active")
            if not sent:  # the first went before we listened
                pair.a.forwarder.keyring._on_nearly_used(pair.a.forwarder.keyring.active.key_id)
                await until(lambda: sent)
                await pair.settled()
            before = pair.b.status()
            _, writer = await asyncio.open_connection(*pair.b.control_address)
            message = sent[0]
            frame = b"\0" + message.tag + message.signed
            writer.write(len(frame).to_bytes(2, "big") + frame)
            await until(lambda: pair.b.status().refused_messages == before.refused_messages + 1)
            assert "replayed" in pair.b.status().last_refusal
            assert pair.b.status().key_id == before.key_id
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"policy": "best-effort"}, "policy"),
        ({"policy": "hybrid-required"}, "peer_key"),
        ({"peer_key": "x"}, "peer_key"),
        ({"exchanges": ["x25519"]}, "qkd-only"),
        ({"policy": "pqc-only", "peer_key": "x", "exchanges": ["x25519"]}, "ml-kem"),
        ({"policy": "pqc-only", "peer_key": "x", "combiner": "xor"}, "combiner"),
    ],
    ids=str,
)
def test_a_policy_that_cannot_work_is_refused_by_name(change, named):
    good = {"role": "initiator", "control": "127.0.0.1:1"}
    AgentConfig.from_mapping(good)
    with pytest.raises(ConfigurationError, match=named):
        AgentConfig.from_mapping(good | change)
