"""Two agents and one establishment: QKD, Diffie-Hellman and ML-KEM behind the same calls, and what a forger tries."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from uuid import UUID

import msgspec
import pytest

from heliograph.errors import ConfigurationError, KeySupplyError, RemoteProtocolError
from heliograph.establishment.combiner import Combiner
from heliograph.establishment.exchange import Settings, initiate, respond
from heliograph.establishment.messages import Offer, PeerKeys, Tagged, tagged
from heliograph.establishment.policy import EXCHANGES, QKD, Policy, Requirement
from heliograph.establishment.qkd import QkdEstablishment
from heliograph.testing.exchanges import seeded_exchanges
from heliograph.testing.keysource import MemoryKeyManagers
from heliograph.testing.randomness import SeededRandom
from heliograph.vault.exchanges import exchange_methods
from heliograph.vault.randomness import SystemRandomness

USUAL = ("ml-kem-768", "x25519")
FRESH = bytes(range(16))


def settings(policy=Policy.HYBRID_REQUIRED, exchanges=USUAL, **changes) -> Settings:
    plain = Settings(
        "sae-a",
        "sae-b",
        Requirement(policy, exchanges),
        Combiner.HKDF_SHA_512,
        "aes-256-gcm",
        PeerKeys.derive(b"s" * 32),
    )
    return replace(plain, **changes)


def methods(source, exchanges=USUAL):
    return exchange_methods(exchanges, SystemRandomness()) | {QKD: QkdEstablishment(source)}


async def establish(ours, theirs, managers):
    initiated = await initiate(ours, methods(managers.master, ours.requirement.exchanges), FRESH)
    key, answer = await respond(theirs, methods(managers.slave, theirs.requirement.exchanges), initiated.message)
    return initiated.finish(answer), key


@pytest.mark.parametrize("name", EXCHANGES)
def test_every_exchange_agrees_and_never_twice_on_the_same_secret(name):
    async def scenario():
        method = exchange_methods((name,), SystemRandomness())[name]
        secrets = set()
        for _ in range(3):
            pending = await method.offer()
            secret, answer = await method.answer(pending.share)
            assert pending.finish(answer) == secret
            secrets.add(secret)
        assert len(secrets) == 3
        other = await method.offer()
        assert other.share != pending.share

    asyncio.run(scenario())


@pytest.mark.parametrize("name", EXCHANGES)
@pytest.mark.parametrize("junk", [b"", bytes(32), bytes(65), b"\4" + bytes(96), b"\xff" * 1184, b"\xff" * 1568])
def test_a_share_that_is_no_public_key_is_refused(name, junk):
    async def scenario():
        method = exchange_methods((name,), SystemRandomness())[name]
        with pytest.raises(RemoteProtocolError, match=name):
            await method.answer(junk)
        with pytest.raises(RemoteProtocolError, match=name):
            (await method.offer()).finish(junk[:31])

    asyncio.run(scenario())


@pytest.mark.parametrize("exchanges", [USUAL, ("ml-kem-1024", "p-384"), ("ml-kem-768", "p-256", "x25519")])
def test_hybrid_required_has_every_secret_in_the_key(exchanges):
    async def scenario():
        ours = settings(exchanges=exchanges)
        managers = MemoryKeyManagers()
        a, b = await establish(ours, ours, managers)
        assert a == b
        assert a.components == (QKD, *exchanges)
        assert managers.named == [str(UUID(bytes=a.key_id))]

    asyncio.run(scenario())


def test_hybrid_required_gives_nothing_when_the_link_has_no_key():
    async def scenario():
        with pytest.raises(KeySupplyError):
            await initiate(settings(), methods(MemoryKeyManagers(0).master), FRESH)

    asyncio.run(scenario())


def test_hybrid_required_gives_nothing_when_only_the_responder_lacks_the_key():
    async def scenario():
        initiated = await initiate(settings(), methods(MemoryKeyManagers().master), FRESH)
        with pytest.raises(KeySupplyError):
            await respond(settings(), methods(MemoryKeyManagers().slave), initiated.message)

    asyncio.run(scenario())


def test_qkd_preferred_goes_on_without_and_says_so_whichever_side_lacks_the_key():
    async def scenario():
        ours = settings(Policy.QKD_PREFERRED)
        with_key = await establish(ours, ours, MemoryKeyManagers())
        assert with_key[0].components == (QKD, *USUAL)
        for managers in (MemoryKeyManagers(0), MemoryKeyManagers()):
            managers.take_named = lambda _: (_ for _ in ()).throw(KeySupplyError("down"))
            a, b = await establish(ours, ours, managers)
            assert a == b
            assert a.components == USUAL

    asyncio.run(scenario())


def test_pqc_only_never_asks_the_key_manager():
    async def scenario():
        ours, managers = settings(Policy.PQC_ONLY), MemoryKeyManagers()
        a, b = await establish(ours, ours, managers)
        assert a == b
        assert a.key_id == FRESH
        assert managers.named == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"requirement": Requirement(Policy.QKD_PREFERRED, USUAL)}, "policy"),
        ({"requirement": Requirement(Policy.HYBRID_REQUIRED, ("ml-kem-768",))}, "policy"),
        ({"combiner": Combiner.CATKDF}, "combiner"),
        ({"usage": "chacha20-poly1305"}, "cipher"),
        ({"initiator": "sae-c"}, "initiator"),
        ({"responder": "sae-c"}, "responder"),
        ({"keys": PeerKeys.derive(b"t" * 32)}, "tag"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_responder_set_up_otherwise_refuses_the_offer_before_a_key_is_fetched(changes, named):
    async def scenario():
        managers = MemoryKeyManagers()
        initiated = await initiate(settings(), methods(managers.master), FRESH)
        theirs = replace(settings(), **changes)
        with pytest.raises(RemoteProtocolError, match=named):
            await respond(theirs, methods(managers.slave, theirs.requirement.exchanges), initiated.message)
        assert len(managers._awaited) == 1  # the slave's copy is still there

    asyncio.run(scenario())


def test_every_flipped_byte_of_an_offer_or_an_answer_is_refused():
    async def scenario():
        ours, managers = settings(Policy.PQC_ONLY, ("ml-kem-768",)), MemoryKeyManagers()
        ways = methods(managers.master, ("ml-kem-768",))
        initiated = await initiate(ours, ways, FRESH)
        _, answer = await respond(ours, ways, initiated.message)
        for message in (initiated.message, answer):
            for at in range(0, len(message.signed), 7):
                bent = bytearray(message.signed)
                bent[at] ^= 1
                forged = Tagged(bytes(bent), message.tag)
                if message is answer:
                    with pytest.raises(RemoteProtocolError, match="tag"):
                        initiated.finish(forged)
                else:
                    with pytest.raises(RemoteProtocolError, match="tag"):
                        await respond(ours, ways, forged)
        with pytest.raises(RemoteProtocolError, match="tag"):
            initiated.finish(initiated.message)  # reflected
        with pytest.raises(RemoteProtocolError, match="tag"):
            await respond(ours, ways, answer)

    asyncio.run(scenario())


def test_an_answer_to_another_offer_is_refused_even_under_the_same_name():
    async def scenario():
        ours = settings(Policy.PQC_ONLY)
        ways = methods(MemoryKeyManagers().master)
        first, second = await initiate(ours, ways, FRESH), await initiate(ours, ways, FRESH)
        _, answer = await respond(ours, ways, first.message)
        with pytest.raises(RemoteProtocolError, match="another offer"):
            second.finish(answer)

    asyncio.run(scenario())


def test_a_peer_that_leaves_an_exchange_out_gets_no_key():
    async def scenario():
        ours, ways = settings(), methods(MemoryKeyManagers().master)
        offer = msgspec.msgpack.decode((await initiate(ours, ways, FRESH)).message.signed, type=Offer)
        for components in ([], [QKD], [QKD, "x25519"], [QKD, "x25519", "ml-kem-768"], list(USUAL), [QKD, *USUAL, QKD]):
            shares = offer.shares[: len(components)] + [b""] * max(0, len(components) - 3)
            cut = msgspec.structs.replace(offer, components=components, shares=shares)
            with pytest.raises(RemoteProtocolError, match="policy"):
                await respond(ours, ways, tagged(cut, ours.keys))

    asyncio.run(scenario())


def test_a_man_in_the_middle_who_changes_a_public_key_needs_the_peer_key():
    async def scenario():
        ours, ways = settings(Policy.PQC_ONLY), methods(MemoryKeyManagers().master)
        initiated = await initiate(ours, ways, FRESH)
        offer = msgspec.msgpack.decode(initiated.message.signed, type=Offer)
        mine = await exchange_methods(USUAL, SystemRandomness())["x25519"].offer()
        swapped = msgspec.structs.replace(offer, shares=[offer.shares[0], mine.share])
        with pytest.raises(RemoteProtocolError, match="tag"):
            await respond(ours, ways, tagged(swapped, PeerKeys.derive(os.urandom(32))))
        # With it he gets in: what the tag is for.
        await respond(ours, ways, tagged(swapped, ours.keys))

    asyncio.run(scenario())


def test_the_seeded_twin_gives_the_same_establishment_twice():
    async def run():
        ours, ways = settings(Policy.PQC_ONLY), seeded_exchanges(USUAL, SeededRandom(7))
        initiated = await initiate(ours, ways, FRESH)
        key, answer = await respond(ours, ways, initiated.message)
        assert initiated.finish(answer) == key
        return initiated.message, answer, key.material

    assert asyncio.run(run()) == asyncio.run(run())


@pytest.mark.parametrize(
    ("policy", "exchanges", "named"),
    [
        (Policy.QKD_ONLY, USUAL, "exchanges"),
        (Policy.PQC_ONLY, (), "ml-kem"),
        (Policy.HYBRID_REQUIRED, ("x25519", "p-256"), "ml-kem"),
        (Policy.PQC_ONLY, ("ml-kem-768", "ml-kem-768"), "once"),
        (Policy.PQC_ONLY, ("kyber",), "choose"),
    ],
)
def test_a_policy_that_promises_less_than_its_name_is_refused(policy, exchanges, named):
    with pytest.raises(ConfigurationError, match=named):
        Requirement(policy, exchanges)
