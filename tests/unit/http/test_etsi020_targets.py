"""ETSI GS QKD 020 with several targets for a key: each gets it once, all of them or none, whatever way it goes."""

import asyncio
import base64
import contextlib
import json
import os
import uuid

import pytest
from three_key_managers import CHAIN, FAN, three_key_managers
from two_key_managers import ACK, tls_of

from heliograph.errors import ConfigurationError, InsufficientKeys, StoreUnavailable
from heliograph.kme.etsi020 import acks_document
from heliograph.kme.etsi020_records import Ack, AckStatus
from heliograph.kme.foreign_groups import ForeignGroup, ForeignGroups
from heliograph.kme.key_facts import KeyFacts
from heliograph.testing.failing_store import FailingTransaction

EXT, VOID = "/kmapi/v1/ext_keys", "/kmapi/v1/ext_keys/void"
TYPE = "https://qkd.etsi.org/gs020-interop-kms/"
OTHERS = {"fan": ["sae-1b", "sae-2", "sae-2b", "sae-3"], "chain": ["sae-2", "sae-3"]}
GROUPS = {"fan": FAN, "chain": CHAIN}
AT = {"sae-1b": 0, "sae-2": 1, "sae-2b": 1, "sae-3": 2}


async def settle(managers, clock, ticks=6):
    for _ in range(ticks):
        for manager in managers:
            await manager.runner.tick()
        clock.advance(2)


def key(key_id=None, **more):
    return {"key_id": key_id or str(uuid.uuid4()), "value": base64.b64encode(os.urandom(32)).decode(), **more}


def offer(manager, *keys, targets=("sae-2", "sae-3"), **more):
    body = {"keys": list(keys), "initiator_sae_id": "sae-1", "target_sae_ids": list(targets), **more}
    return {"ack_callback_url": f"{manager.url}{ACK}", **body}


def void(manager, *key_ids, targets=("sae-2", "sae-3"), **more):
    body = {"key_ids": list(key_ids), "initiator_sae_id": "sae-1", "target_sae_ids": list(targets), **more}
    return {"ack_callback_url": f"{manager.url}{ACK}", **body}


async def call(wire, caller, called, path, document):
    body = json.dumps({name: value for name, value in document.items() if value is not None}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: kme\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    status, _, answer = await wire.exchange(called.port, tls_of(caller), head + body)
    return status, json.loads(answer) if answer else None


@pytest.mark.parametrize("way", ["fan", "chain"])
def test_every_target_and_the_initiator_get_one_key_each_once(tmp_path, way):
    others = OTHERS[way]

    async def act():
        async with three_key_managers(tmp_path, GROUPS[way]) as (managers, clock):
            one = managers[0]
            await settle(managers, clock)
            mine = one.supply.enc_keys("sae-1", others[0], 2, additional=others[1:])
            for given in mine:
                got = [managers[AT[sae]].fetch(sae, given.key_id) for sae in others]
                assert got == [given.material] * len(others)
                again = [managers[AT[sae]].fetch(sae, given.key_id) for sae in others]
                assert again == ["KeyNotFound"] * len(others)
            return {given.material for given in mine}

    assert len(asyncio.run(act())) == 2


@pytest.mark.parametrize(("way", "away"), [("fan", 1), ("fan", 2), ("chain", 2)])
def test_no_sae_has_a_key_while_one_target_has_not(tmp_path, way, away):
    """Operation of the API: a key is not released before it is known to be relayed to all intended targets."""
    others = OTHERS[way]

    async def act():
        async with three_key_managers(tmp_path, GROUPS[way]) as (managers, clock):
            one = managers[0]
            await managers[away].server.close()
            await settle(managers, clock, 4)
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", others[0], 1, additional=others[1:])
            key_id = next(iter(one.states()))
            near = [sae for sae in others if AT[sae] == 0 or (way == "chain" and AT[sae] == 1)]
            assert not any(isinstance(managers[AT[sae]].fetch(sae, key_id), bytes) for sae in near)
            await managers[away].listen()
            clock.advance(60)
            await settle(managers, clock)
            (given,) = one.supply.enc_keys("sae-1", others[0], 1, additional=others[1:])
            assert [managers[AT[sae]].fetch(sae, given.key_id) for sae in others] == [given.material] * len(others)

    asyncio.run(act())


@pytest.mark.parametrize("way", ["fan", "chain"])
def test_a_key_that_one_target_cannot_have_is_voided_for_all(tmp_path, way):
    others = OTHERS[way]

    async def act():
        async with three_key_managers(tmp_path, GROUPS[way]) as (managers, clock):
            one, two, three = managers
            three.interworking.declare([], synchronous=False)  # 401 for everybody
            await settle(managers, clock, 3)
            first = [key_id for key_id, state in one.states().items() if state == "dead"]
            await settle(managers, clock, 8)
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", others[0], 1, additional=others[1:])
            for key_id in first:
                assert {state for (name, _), state in one.legs().items() if name == key_id} == {"dead"}
                assert two.states()[key_id] in {"voided", "failed"}
                assert {two.fetch(sae, key_id) for sae in others if AT[sae] == 1} <= {"KeyNotFound", "NotPermitted"}
            assert three.states() == {}
            return first

    assert asyncio.run(act())


def test_targets_that_are_no_declared_group_are_refused_with_proof_and_none_is_held(tmp_path, wire):
    cases = {
        ("sae-2", "sae-9"): "no_route_multiple_targets",
        ("sae-9",): "target_sae_id_not_recognized",
        ("sae-2",): "target_sae_id_not_recognized",  # of the group, without the others: no declared pair
        ("sae-2", "sae-3", "sae-9"): "no_route_multiple_targets",
    }

    async def act():
        async with three_key_managers(tmp_path, CHAIN) as (managers, _):
            one, two, three = managers
            answers = {
                targets: await call(wire, one, two, EXT, offer(one, key(), targets=targets)) for targets in cases
            }
            # From another than the declared key manager, and one that would have to be passed back.
            other = await call(wire, three, two, EXT, offer(three, key()))
            return answers, other, two.states(), two.legs()

    answers, other, states, legs = asyncio.run(act())
    for targets, (status, answer) in answers.items():
        assert (status, answer["type"]) == (400, TYPE + "key-routing-error"), targets
        assert cases[targets] in answer["details"]
    assert (other[0], list(other[1]["details"])) == (400, ["invalid_routing"])
    assert "passed back" in other[1]["details"]["invalid_routing"]
    assert (states, legs) == ({}, {})


def test_a_synchronous_request_for_a_target_behind_another_key_manager_is_refused_with_proof(tmp_path, wire):
    async def act():
        async with three_key_managers(tmp_path, CHAIN, synchronous=True) as (managers, clock):
            one, two, _ = managers
            refused = await call(wire, one, two, EXT, offer(one, key(), ack_callback_url=None))
            given = key()
            await call(wire, one, two, EXT, offer(one, given))
            late = await call(wire, one, two, VOID, void(one, given["key_id"], ack_callback_url=None))
            kept = two.states()[given["key_id"]], two.legs()[given["key_id"], "kme-3"]
            await settle(managers, clock, 2)
            return refused, late, kept

    refused, late, kept = asyncio.run(act())
    assert (refused[0], late[0]) == (400, 400)
    assert late[1]["type"] == TYPE + "void-request-not-understood"
    assert kept == ("passing", "offered")  # nothing was changed


def test_a_repeated_offer_for_several_targets_is_the_same_offer(tmp_path, wire):
    async def act():
        async with three_key_managers(tmp_path, CHAIN) as (managers, clock):
            one, two, three = managers
            given = key()
            first = await call(wire, one, two, EXT, offer(one, given))
            again = await call(wire, one, two, EXT, offer(one, given, targets=("sae-3", "sae-2")))
            other = await call(wire, one, two, EXT, offer(one, key(given["key_id"])))
            await settle(managers, clock, 3)
            late = await call(wire, one, two, EXT, offer(one, given))
            got = [two.fetch("sae-2", given["key_id"]), three.fetch("sae-3", given["key_id"])]
            last = await call(wire, one, two, EXT, offer(one, given))
            again_got = [two.fetch("sae-2", given["key_id"]), three.fetch("sae-3", given["key_id"])]
            return [answer[0] for answer in (first, again, other, late, last)], got, again_got, given["value"]

    statuses, got, again, value = asyncio.run(act())
    assert statuses == [202, 202, 400, 202, 202]
    assert got == [base64.b64decode(value)] * 2
    assert again == ["KeyNotFound"] * 2


@pytest.mark.parametrize("named", [("sae-2", "sae-3"), ("sae-2",), ("sae-3",)])
def test_a_void_reaches_every_target_whichever_of_them_it_names(tmp_path, wire, named):
    async def act():
        async with three_key_managers(tmp_path, CHAIN) as (managers, clock):
            one, two, three = managers
            await settle(managers, clock)
            key_id = next(iter(two.states()))
            assert two.states()[key_id] == "held"
            accepted = await call(wire, one, two, VOID, void(one, key_id, targets=named))
            assert two.fetch("sae-2", key_id) == "KeyNotFound"
            before = [ack for _, ack in two.store.owed(1e9, 100)]  # its fate is not known yet
            await settle(managers, clock, 3)
            assert three.fetch("sae-3", key_id) == "KeyNotFound"
            return accepted[0], before, two.legs()[key_id, "kme-3"], one.legs()[key_id, "kme-2"], one.states()[key_id]

    status, before, onward, leg, state = asyncio.run(act())
    assert (status, before) == (202, [])
    assert (onward, leg, state) == ("dead", "dead", "dead")


def test_a_void_fails_where_one_target_has_the_key_and_the_others_get_it_no_more(tmp_path, wire):
    async def act():
        async with three_key_managers(tmp_path) as (managers, clock):
            one, two, _ = managers
            await settle(managers, clock)
            (given,) = one.supply.enc_keys("sae-1", "sae-1b", 1, additional=["sae-2", "sae-2b", "sae-3"])
            assert two.fetch("sae-2", given.key_id) == given.material
            await call(wire, one, two, VOID, void(one, given.key_id, targets=("sae-2", "sae-2b")))
            owed = [ack.status for _, ack in two.store.owed(1e9, 10) if given.key_id in ack.key_ids]
            return owed, two.fetch("sae-2b", given.key_id)

    owed, other = asyncio.run(act())
    assert owed == [AckStatus.FAILED_TO_VOID]
    assert other == "KeyNotFound"


def test_a_void_that_failed_behind_another_key_manager_is_told_as_failed(tmp_path, wire):
    async def act():
        async with three_key_managers(tmp_path, CHAIN) as (managers, clock):
            one, two, three = managers
            await settle(managers, clock)
            (given,) = one.supply.enc_keys("sae-1", "sae-2", 1, additional=["sae-3"])
            assert three.fetch("sae-3", given.key_id) == given.material
            await call(wire, one, two, VOID, void(one, given.key_id))
            await two.runner.tick()
            await three.runner.tick()
            return [ack.status for _, ack in two.store.owed(1e9, 10) if given.key_id in ack.key_ids]

    assert asyncio.run(act()) == [AckStatus.FAILED_TO_VOID]


def test_an_acknowledgement_for_other_targets_than_those_of_its_leg_is_refused(tmp_path, wire):
    async def act():
        async with three_key_managers(tmp_path) as (managers, _):
            one, two, _ = managers
            await one.runner.tick()
            (key_id, *_) = one.states()
            answers = []
            for targets in (("sae-3",), ("sae-2",), ("sae-2b", "sae-2", "sae-3"), ("sae-2b", "sae-2")):
                body = acks_document([Ack((key_id,), AckStatus.RELAYED, "sae-1", targets)])
                head = f"POST {ACK} HTTP/1.1\r\nHost: kme\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                answers.append((await wire.exchange(one.port, tls_of(two), head + body))[0])
            return answers, one.legs()[key_id, "kme-2"], one.legs()[key_id, "kme-3"]

    assert asyncio.run(act()) == ([400, 400, 400, 200], "relayed", "assigned")


def test_a_void_that_comes_while_an_older_acknowledgement_is_under_way_is_answered_too(tmp_path, wire):
    async def act():
        async with three_key_managers(tmp_path) as (managers, clock):
            one, two, _ = managers
            given = key()
            await call(wire, one, two, EXT, offer(one, given, targets=("sae-2", "sae-2b")))
            ((_, relayed),) = two.store.owed(clock.now(), 10)  # on its way
            await call(wire, one, two, VOID, void(one, given["key_id"], targets=("sae-2", "sae-2b")))
            two.store.answered(relayed.key_ids, relayed.status)  # its answer comes only now
            return [(ack.key_ids, ack.status) for _, ack in two.store.owed(clock.now(), 10)], given["key_id"]

    owed, key_id = asyncio.run(act())
    assert owed == [((key_id,), AckStatus.VOIDED)]


# -- extensions --------------------------------------------------------------------------------------------------------


def facts(manager, sae, key_id):
    (stored,) = manager.supply.dec_keys(sae, "sae-1", [key_id])
    return KeyFacts(1000.0, lambda _: ("kme",)).of(stored)


def test_optional_extensions_are_passed_on_unchanged_and_told_to_the_targets(tmp_path, wire):
    """Extensions: what a KME does not recognise, "it shall pass on [...] without change"."""
    of_all, of_one = {"E32473_route": ["a", 2, {"b": None}]}, {"E32473_colour": {"green": True}}

    async def act():
        async with three_key_managers(tmp_path, CHAIN) as (managers, clock):
            one, two, three = managers
            given, plain = key(extension=of_one), key()
            await call(wire, one, two, EXT, offer(one, given, plain, extension_optional=of_all))
            (request,) = two.store.to_offer(clock.now(), 10)
            await settle(managers, clock, 4)
            told = [facts(two, "sae-2", given["key_id"]), facts(three, "sae-3", given["key_id"])]
            return request, told, facts(three, "sae-3", plain["key_id"])

    request, told, plain = asyncio.run(act())
    assert (request.optional, [k.extension for k in request.keys]) == (of_all, [of_one, None])
    for known in told:
        assert {name: value for name, value in known.items() if name[0] == "E"} == {**of_all, **of_one}
        assert known["heliograph_protocol"] == "etsi020"
    assert {name: value for name, value in plain.items() if name[0] == "E"} == of_all


def test_extensions_of_an_acknowledgement_come_back_to_the_initiator(tmp_path, wire):
    async def act():
        async with three_key_managers(tmp_path, CHAIN) as (managers, _):
            one, two, three = managers
            await one.runner.tick()
            await two.runner.tick()
            (key_id, *_) = one.states()
            ack = Ack(
                (key_id,), AckStatus.RELAYED, "sae-1", ("sae-3",), None, {"E32473_hops": 3}, {key_id: {"E32473_x": [1]}}
            )
            body = acks_document([ack])
            head = f"POST {ACK} HTTP/1.1\r\nHost: kme\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            assert (await wire.exchange(two.port, tls_of(three), head + body))[0] == 200
            await two.runner.tick()
            (given,) = one.supply.enc_keys("sae-1", "sae-2", 1, additional=["sae-3"])
            return KeyFacts(1000.0, lambda _: ("kme",)).of(given)

    known = asyncio.run(act())
    assert (known["E32473_hops"], known["E32473_x"]) == (3, [1])


def test_a_mandatory_extension_is_refused_before_a_leg_is_begun(tmp_path, wire):
    async def act():
        async with three_key_managers(tmp_path, CHAIN) as (managers, _):
            one, two, _ = managers
            answer = await call(wire, one, two, EXT, offer(one, key(), extension_mandatory={"E32473_direct": True}))
            return answer, two.states(), two.legs()

    (status, answer), states, legs = asyncio.run(act())
    assert (status, answer["type"]) == (503, TYPE + "unsupported-mandatory-extension")
    assert (states, legs) == ({}, {})


def test_facts_of_keys_drawn_here_go_with_them_under_the_operators_number(tmp_path):
    said = {"E32473_heliograph_protocol": "etsi020", "E32473_heliograph_path": ["kme-1"]}

    async def act():
        async with three_key_managers(tmp_path, CHAIN, said=said) as (managers, clock):
            await settle(managers, clock)
            (given,) = managers[0].supply.enc_keys("sae-1", "sae-2", 1, additional=["sae-3"])
            return facts(managers[2], "sae-3", given.key_id)

    known = asyncio.run(act())
    assert {name: value for name, value in known.items() if name[0] == "E"} == said


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("m", (), {"m": "k"}), "at least one slave"),
        (("m", ("s", "s"), {"m": "k"}), "each once"),
        (("m", ("m",), {"m": "k"}), "each once"),
        (("m", ("s",), {}), r"group of \[kme\]"),
        (("m", ("s",), {"m": "k", "s": "k"}), "not passed back"),
        (("m", ("s",), {"m": "k"}, 4), "stock is for a master here"),
    ],
)
def test_a_group_that_could_not_be_served_is_refused(arguments, cause):
    with pytest.raises(ConfigurationError, match=cause):
        ForeignGroup(*arguments)


def test_a_group_that_comes_twice_is_refused():
    with pytest.raises(ConfigurationError, match="twice"):
        ForeignGroups([ForeignGroup("m", ("a", "b"), {"m": "k"}), ForeignGroup("m", ("b", "a"), {"m": "k"})])


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # every transaction in turn
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(("way", "where"), [("fan", 0), ("fan", 1), ("chain", 0), ("chain", 1), ("chain", 2)])
def test_a_failure_at_any_transaction_gives_no_sae_a_key_that_another_lacks(tmp_path, way, where, durable):
    others = OTHERS[way]

    async def act(number, directory):
        async with three_key_managers(directory, GROUPS[way]) as (managers, clock):
            fault = FailingTransaction(managers[where].database, number, durable=durable)
            mine = []
            for _ in range(6):
                for manager in managers:
                    with contextlib.suppress(StoreUnavailable):
                        await manager.runner.tick()
                clock.advance(30)
                with contextlib.suppress(InsufficientKeys, StoreUnavailable):
                    mine += managers[0].supply.enc_keys("sae-1", others[0], 1, additional=others[1:])
            theirs = [
                (given, sae, [managers[AT[sae]].fetch(sae, given.key_id) for _ in range(2)])
                for given in mine
                for sae in others
            ]
            return fault.reached, mine, theirs

    number, reached, least = 1, True, 100
    while reached:
        directory = tmp_path / str(number)
        directory.mkdir()
        reached, mine, theirs = asyncio.run(act(number, directory))
        assert len({given.material for given in mine}) == len(mine)
        least = min(least, len(mine))
        lacking = [got for given, _, got in theirs if got != [given.material, "KeyNotFound"]]
        # Of the fetches one may have hit the fault: refused and still there, or burnt without an answer.
        assert len(lacking) <= (1 if reached else 0)
        for got in lacking:
            assert got[0] == "StoreUnavailable"
        number += 3  # every third: three stores and a handshake each are slow
    assert least >= 2
    assert number > 12


@pytest.mark.parametrize("who", [0, 1, 2])
def test_a_key_manager_that_restarts_goes_on_with_what_it_promised(tmp_path, who):
    async def act():
        async with three_key_managers(tmp_path, CHAIN) as (managers, clock):
            for manager in managers[:2]:
                await manager.runner.tick()
            again = managers[who]
            await again.stop()
            again.open(tmp_path, [other for other in managers if other is not again], clock)
            await again.listen()
            clock.advance(5)
            await settle(managers, clock)
            (given,) = managers[0].supply.enc_keys("sae-1", "sae-2", 1, additional=["sae-3"])
            return given.material, [managers[1].fetch("sae-2", given.key_id), managers[2].fetch("sae-3", given.key_id)]

    material, got = asyncio.run(act())
    assert got == [material] * 2
