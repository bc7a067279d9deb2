"""ETSI GS QKD 020 V1.1.1, method by method and rule by rule, between two real key managers."""

import asyncio
import base64
import json
import os
import ssl
import threading
import uuid

import pytest
from two_key_managers import ACK, stranger_tls, tls_of, two_key_managers

from heliograph.errors import InsufficientKeys, KeyNotFound
from heliograph.kme.etsi020_records import AckStatus

EXT, VOID = "/kmapi/v1/ext_keys", "/kmapi/v1/ext_keys/void"
TYPE = "https://qkd.etsi.org/gs020-interop-kms/"


def key(key_id=None, value=None):
    value = os.urandom(32) if value is None else value
    return {"key_id": key_id or str(uuid.uuid4()), "value": base64.b64encode(value).decode()}


def offer(*keys, callback=None, **more):
    body = {"keys": list(keys), "initiator_sae_id": "sae-1", "target_sae_ids": ["sae-2"], **more}
    return body if callback is None else {**body, "ack_callback_url": callback}


def run(act):
    return asyncio.run(act())


async def call(wire, manager, path, document, tls, verb="POST"):
    body = None if verb == "GET" else (document if isinstance(document, bytes) else json.dumps(document).encode())
    head = f"{verb} {path} HTTP/1.1\r\nHost: kme\r\n" + (f"Content-Length: {len(body)}\r\n" if body is not None else "")
    status, headers, answer = await wire.exchange(manager.port, tls, (head + "\r\n").encode() + (body or b""))
    return status, headers, json.loads(answer) if answer else None


def test_versions_are_told_and_the_synchronous_mode_only_where_it_is_served(tmp_path, wire):
    for synchronous in (False, True):

        async def act(synchronous=synchronous):
            async with two_key_managers(tmp_path / str(synchronous), synchronous=synchronous) as (one, two, _):
                return await call(wire, two, "/kmapi/versions", None, tls_of(one), "GET")

        status, _, answer = run(act)
        expected = {"versions": ["v1"], "capabilities": ["synchronous_mode"]} if synchronous else {"versions": ["v1"]}
        assert (status, answer) == (200, expected)


def test_keys_go_over_and_both_saes_fetch_the_same_each_once(tmp_path):
    async def act():
        async with two_key_managers(tmp_path, stock=3) as (one, two, _):
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", "sae-2", 1)
            await one.runner.tick()
            # Taken over, but not known to be: nothing for the initiator yet.
            assert set(one.states().values()) == {"assigned"}
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", "sae-2", 1)
            await two.runner.tick()
            assert set(one.states().values()) == {"relayed"}
            mine = one.supply.enc_keys("sae-1", "sae-2", 3)
            theirs = two.supply.dec_keys("sae-2", "sae-1", [k.key_id for k in mine])
            assert [k.material for k in mine] == [k.material for k in theirs]
            assert len({k.material for k in mine}) == 3
            with pytest.raises(KeyNotFound):
                two.supply.dec_keys("sae-2", "sae-1", [mine[0].key_id])
            # The next tick draws fresh ones, none twice.
            await one.runner.tick()
            await two.runner.tick()
            assert {k.key_id for k in one.supply.enc_keys("sae-1", "sae-2", 3)}.isdisjoint(k.key_id for k in mine)

    run(act)


def test_the_synchronous_mode_answers_at_once(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path, synchronous=True) as (one, two, _):
            given = key()
            sent = await call(wire, two, EXT, offer(given), tls_of(one))
            voided = await call(
                wire,
                two,
                VOID,
                {"key_ids": [given["key_id"]], "initiator_sae_id": "sae-1", "target_sae_ids": ["sae-2"]},
                tls_of(one),
            )
            return given, sent, voided, two.store.owed(1e9, 10)

    given, sent, voided, owed = run(act)
    ack = {
        "key_id_container": [{"key_id": given["key_id"]}],
        "initiator_sae_id": "sae-1",
        "target_sae_ids": ["sae-2"],
    }
    assert (sent[0], sent[2]) == (200, [{**ack, "ack_status": "relayed"}])
    assert (voided[0], voided[2]) == (200, [{**ack, "ack_status": "voided"}])
    assert owed == []


# What is sent to ext_keys, the status, and the slug of the RFC 9457 type.
REFUSED_OFFERS = {
    "no JSON": (b"{", 400, "missing-parameters"),
    "a list": (b"[]", 400, "missing-parameters"),
    "no keys": ({"initiator_sae_id": "sae-1", "target_sae_ids": ["sae-2"]}, 400, "missing-parameters"),
    "empty keys": (offer(), 400, "missing-parameters"),
    "key_ids of others' dialects": (
        {"key_ids": ["x"], "initiator_sae_id": "sae-1", "target_sae_id": "sae-2"},
        400,
        "missing-parameters",
    ),
    "unknown member": (offer(key(), colour="red"), 400, "missing-parameters"),
    "no UUID": (offer(key("k1")), 400, "missing-parameters"),
    "twice": (offer(*[key("00000000-0000-4000-8000-000000000001")] * 2), 400, "missing-parameters"),
    "no base64": (offer({"key_id": str(uuid.uuid4()), "value": "%%%"}), 400, "missing-parameters"),
    "loose base64": (
        offer({"key_id": str(uuid.uuid4()), "value": base64.b64encode(bytes(31)).decode()[:-2] + "B="}),
        400,
        "missing-parameters",
    ),
    "other size": (offer(key(value=bytes(16))), 400, "missing-parameters"),
    "long SAE ID": ({**offer(key()), "initiator_sae_id": "s" * 65}, 400, "missing-parameters"),
    "blank SAE ID": ({**offer(key()), "target_sae_ids": [" "]}, 400, "missing-parameters"),
    "SAE ID with a space": ({**offer(key()), "target_sae_ids": ["sae 2"]}, 400, "missing-parameters"),
    "SAE ID outside ASCII": ({**offer(key()), "target_sae_ids": ["s\u00e4e"]}, 400, "missing-parameters"),
    "SAE ID, percent alone": ({**offer(key()), "target_sae_ids": ["sae%2"]}, 400, "missing-parameters"),
    "long callback": (offer(key(), callback="URL/" + "a" * 1024), 400, "missing-parameters"),
    "empty extension": (offer(key(), extension_optional={}), 400, "missing-parameters"),
    "no target": ({**offer(key()), "target_sae_ids": []}, 400, "missing-parameters"),
    "itself": ({**offer(key()), "target_sae_ids": ["sae-1"]}, 400, "missing-parameters"),
    "too many": (offer(*[key() for _ in range(129)]), 400, "missing-parameters"),
    "no callback, no synchronous mode": (offer(key()), 400, "missing-parameters"),
    "callback elsewhere": (offer(key(), callback="https://203.0.113.9/steal"), 400, "missing-parameters"),
    "callback's prefix": (offer(key(), callback="URLevil.example/"), 400, "missing-parameters"),
    "callback without TLS": (offer(key(), callback="http://127.0.0.1/ack"), 400, "missing-parameters"),
    "unknown target": ({**offer(key(), callback="URL/ack"), "target_sae_ids": ["sae-9"]}, 400, "key-routing-error"),
    "unknown initiator": ({**offer(key(), callback="URL/ack"), "initiator_sae_id": "sae-9"}, 400, "key-routing-error"),
    "two targets": (
        {**offer(key(), callback="URL/ack"), "target_sae_ids": ["sae-2", "sae-3"]},
        400,
        "key-routing-error",
    ),
    "mandatory extension": (
        offer(key(), extension_mandatory={"E12345_colour": "red"}),
        503,
        "unsupported-mandatory-extension",
    ),
    "extension array as in 014": (offer(key(), extension_mandatory=[{"a_b": 1}]), 400, "missing-parameters"),
    "extension without PEN": (offer(key(), extension_optional={"colour": 1}), 400, "missing-parameters"),
}


def test_every_wrong_offer_is_a_problem_document_and_no_key_of_it_is_taken(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path) as (one, two, _):
            tls = tls_of(one)
            answers = {}
            for case, (document, *_rest) in REFUSED_OFFERS.items():
                if isinstance(document, dict) and "ack_callback_url" in document:
                    url = document["ack_callback_url"].replace("URL", one.url)
                    document = {**document, "ack_callback_url": url}  # noqa: PLW2901
                answers[case] = await call(wire, two, EXT, document, tls)
            return answers, two.states(), two.keys.counts("sae-1", "sae-2").held

    answers, states, held = run(act)
    for case, (status, headers, answer) in answers.items():
        assert (status, answer["type"]) == (REFUSED_OFFERS[case][1], TYPE + REFUSED_OFFERS[case][2]), (case, answer)
        assert answer["status"] == status
        assert answer["title"]
        assert headers["content-type"].startswith("application/json")
    assert (states, held) == ({}, 0)
    assert "E12345_colour" in answers["mandatory extension"][2]["details"]["unsupported_mandatory_extension"]


def test_optional_extensions_are_ignored(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path) as (one, two, _):
            given = offer(
                {**key(), "extension": {"E1_x": 1}}, callback=f"{one.url}{ACK}", extension_optional={"E1_y": [2]}
            )
            return (await call(wire, two, EXT, given, tls_of(one)))[0]

    assert run(act) == 202


def test_a_repeated_offer_is_the_same_offer_and_another_value_is_refused(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path) as (one, two, _):
            given, callback = key(), f"{one.url}{ACK}"
            first = await call(wire, two, EXT, offer(given, callback=callback), tls_of(one))
            again = await call(wire, two, EXT, offer(given, callback=callback), tls_of(one))
            other = await call(wire, two, EXT, offer(key(given["key_id"]), callback=callback), tls_of(one))
            mixed = await call(wire, two, EXT, offer(key(), key(given["key_id"]), callback=callback), tls_of(one))
            (got,) = two.supply.dec_keys("sae-2", "sae-1", [given["key_id"]])
            # After delivery too: nothing is delivered a second time.
            late = await call(wire, two, EXT, offer(given, callback=callback), tls_of(one))
            with pytest.raises(KeyNotFound):
                two.supply.dec_keys("sae-2", "sae-1", [given["key_id"]])
            return given, [a[0] for a in (first, again, other, mixed, late)], got, two.states()

    given, statuses, got, states = run(act)
    assert statuses == [202, 202, 400, 400, 202]
    assert base64.b64encode(got.material).decode() == given["value"]
    assert list(states) == [given["key_id"]]


# -- void --------------------------------------------------------------------------------------------------------------


def void(*key_ids, callback=None, **more):
    body = {"key_ids": list(key_ids), "initiator_sae_id": "sae-1", "target_sae_ids": ["sae-2"], **more}
    return body if callback is None else {**body, "ack_callback_url": callback}


def test_each_key_of_a_void_has_its_own_fate(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path, synchronous=True) as (one, two, _):
            waiting, fetched, never = key(), key(), str(uuid.uuid4())
            tls = tls_of(one)
            await call(wire, two, EXT, offer(waiting, fetched), tls)
            two.supply.dec_keys("sae-2", "sae-1", [fetched["key_id"]])
            _, _, answer = await call(wire, two, VOID, void(waiting["key_id"], fetched["key_id"], never), tls)
            with pytest.raises(KeyNotFound):
                two.supply.dec_keys("sae-2", "sae-1", [waiting["key_id"]])
            # A delayed offer of a key that was voided before it came is refused for ever.
            late = await call(wire, two, EXT, offer(key(never)), tls)
            back = await call(wire, two, EXT, offer(waiting), tls)
            fates = {entry["key_id"]: ack["ack_status"] for ack in answer for entry in ack["key_id_container"]}
            return fates, (waiting["key_id"], fetched["key_id"], never), late[0], back[0]

    fates, (waiting, fetched, never), late, back = run(act)
    assert fates == {waiting: "voided", fetched: "failed to void", never: "key not present"}
    assert (late, back) == (400, 400)


def test_all_keys_of_a_pair_are_voided_only_with_the_confirmation(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path, synchronous=True) as (one, two, _):
            tls = tls_of(one)
            await call(wire, two, EXT, offer(key(), key()), tls)
            bare = await call(wire, two, VOID, void(), tls)
            left = two.keys.counts("sae-1", "sae-2").held
            both = await call(wire, two, VOID, void(str(uuid.uuid4()), all_confirmation=True), tls)
            confirmed = await call(wire, two, VOID, void(all_confirmation=True), tls)
            return bare, left, both, confirmed, two.keys.counts("sae-1", "sae-2").held

    bare, left, both, confirmed, gone = run(act)
    assert (bare[0], bare[2]["type"]) == (400, TYPE + "no-key-ids-or-confirmation")
    assert (both[0], both[2]["type"]) == (400, TYPE + "void-request-not-understood")
    assert (left, confirmed[0], gone) == (2, 200, 0)


def test_the_answer_to_a_void_of_many_keys_keeps_to_what_the_standard_takes_at_once(tmp_path, wire, monkeypatch):
    """MaxItems of key_id_container is 1024."""
    monkeypatch.setattr("heliograph.kme.interworking.ACK_ITEMS_MAX", 2)

    async def act():
        async with two_key_managers(tmp_path, synchronous=True) as (one, two, _):
            tls = tls_of(one)
            await call(wire, two, EXT, offer(*[key() for _ in range(5)]), tls)
            return await call(wire, two, VOID, void(all_confirmation=True), tls)

    status, _, answer = run(act)
    assert (status, [len(ack["key_id_container"]) for ack in answer]) == (200, [2, 2, 1])
    assert len({entry["key_id"] for ack in answer for entry in ack["key_id_container"]}) == 5


def test_a_void_of_another_pair_destroys_nothing(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path, synchronous=True) as (one, two, _):
            given, tls = key(), tls_of(one)
            await call(wire, two, EXT, offer(given), tls)
            other = await call(wire, two, VOID, void(given["key_id"], initiator_sae_id="sae-9"), tls)
            return other[2], two.keys.counts("sae-1", "sae-2").held

    answer, held = run(act)
    assert answer[0]["ack_status"] == "key not present"
    assert held == 1


# -- the hard rule: only 400 and 401 prove that a key was not taken over -----------------------------------------------


def test_silence_means_assigned_the_same_key_is_offered_again(tmp_path):
    async def act():
        async with two_key_managers(tmp_path, stock=1) as (one, two, clock):
            await two.server.close()
            await one.runner.tick()
            (first,) = one.states()
            assert one.states()[first] == "offered"
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", "sae-2", 1)
            await two.listen()
            clock.advance(5)
            await one.runner.tick()
            await two.runner.tick()
            (released,) = one.supply.enc_keys("sae-1", "sae-2", 1)
            assert released.key_id == first

    run(act)


def test_an_offer_that_is_never_answered_is_voided_and_never_released(tmp_path):
    async def act():
        async with two_key_managers(tmp_path, stock=1) as (one, two, clock):
            await one.runner.tick()  # taken over, but its acknowledgement does not come
            (key_id,) = one.states()
            clock.advance(200)
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", "sae-2", 1)
            assert one.store.give_up(clock.now() - 120, clock.now()) == 1
            # The late word comes now: it is too late.
            for _, ack in two.store.owed(clock.now(), 10):
                one.store.acknowledged("kme-2", [ack], clock.now())
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", "sae-2", 1)
            await one.runner.tick()
            assert two.states()[key_id] == "voided"
            clock.advance(5)
            await two.runner.tick()
            assert one.states()[key_id] == "dead"

    run(act)


def test_a_proved_refusal_destroys_the_key_unless_an_earlier_offer_is_in_doubt(tmp_path):
    async def act():
        async with two_key_managers(tmp_path, stock=2) as (one, two, clock):
            two.interworking._peers = {}  # kme-1 is declared no more: 401
            await one.runner.tick()
            assert set(one.states().values()) == {"dead"}
            port = two.server.port
            await two.server.close()
            await one.runner.tick()  # fresh ones, unanswered
            doubtful = {k for k, state in one.states().items() if state == "offered"}
            assert len(doubtful) == 2
            two.port = port
            await two.listen()
            clock.advance(5)
            await one.runner.tick()
            assert {one.states()[k] for k in doubtful} == {"voiding"}
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", "sae-2", 1)

    run(act)


@pytest.mark.parametrize("status", [200, 202, 204, 302, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504, None])
def test_no_status_but_400_and_401_frees_a_key(status):
    from heliograph.kme.interworking import read_offer_answer  # noqa: PLC0415

    assert read_offer_answer(status, b"anything") is True
    assert read_offer_answer(400, b"") is False
    assert read_offer_answer(401, b"") is False


# -- acknowledgements --------------------------------------------------------------------------------------------------


def test_acknowledgements_are_taken_whole_or_not_at_all(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path, stock=2) as (one, two, _):
            await one.runner.tick()
            known = list(one.states())

            def ack(key_ids, **more):
                return {
                    "key_id_container": [{"key_id": k} for k in key_ids],
                    "ack_status": "relayed",
                    "initiator_sae_id": "sae-1",
                    "target_sae_ids": ["sae-2"],
                    **more,
                }

            tls = tls_of(two)
            wrong = {
                "an object": ack(known),
                "empty": [],
                "unknown key": [ack(known), ack([str(uuid.uuid4())])],
                "other target": [ack(known[:1]), ack(known[1:], target_sae_ids=["sae-3"])],
                "unknown status": [ack(known, ack_status="delivered")],
                "too many": [ack(known)] * 1025,
                "no keys": [ack([])],
            }
            refused = {case: await call(wire, one, ACK, document, tls) for case, document in wrong.items()}
            untouched = set(one.states().values())
            right = await call(wire, one, ACK, [ack(known[:1]), ack(known[1:], ack_status="failed")], tls)
            again = await call(wire, one, ACK, [ack(known[:1])], tls)
            return refused, untouched, right[0], again[0], [one.states()[k] for k in known], one.supply

    refused, untouched, right, again, states, _ = run(act)
    slugs = {"unknown key": (400, "key-not-present"), "too many": (413, "missing-parameters")}
    for case, (status, _, answer) in refused.items():
        expected, slug = slugs.get(case, (400, "ack-not-understood"))
        assert (status, answer["type"]) == (expected, TYPE + slug), case
    assert untouched == {"assigned"}
    assert (right, again, states) == (200, 200, ["relayed", "dead"])


def test_a_failed_key_is_never_released(tmp_path):
    async def act():
        async with two_key_managers(tmp_path, stock=1) as (one, _, clock):
            await one.runner.tick()
            (key_id,) = one.states()
            from heliograph.kme.etsi020_records import Ack  # noqa: PLC0415

            one.store.acknowledged("kme-2", [Ack((key_id,), AckStatus.FAILED, "sae-1", ("sae-2",))], clock.now())
            one.store.acknowledged("kme-2", [Ack((key_id,), AckStatus.RELAYED, "sae-1", ("sae-2",))], clock.now())
            with pytest.raises(InsufficientKeys):
                one.supply.enc_keys("sae-1", "sae-2", 1)

    run(act)


# -- who may call ------------------------------------------------------------------------------------------------------


def test_a_key_manager_that_nobody_declared_is_401_before_its_body_is_read(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path) as (one, two, _):
            tls = stranger_tls(tmp_path, one.ca, "kme-9")
            answers = [await call(wire, two, path, b"not even JSON", tls) for path in (EXT, ACK, VOID)]
            answers.append(await call(wire, two, "/kmapi/versions", None, tls, "GET"))
            return answers, two.states()

    answers, states = run(act)
    assert [(status, answer["type"]) for status, _, answer in answers] == [(401, TYPE + "unauthorized")] * 4
    assert states == {}


def test_an_sae_is_no_key_manager(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path) as (one, two, _):
            certificate, private, ca = one.ca.issue_sae("sae-2").write(tmp_path / "pki", "sae-2")
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.load_cert_chain(certificate, private)
            tls.load_verify_locations(ca)
            return await call(wire, two, EXT, offer(key()), tls)

    status, _, answer = run(act)
    assert (status, answer["type"]) == (401, TYPE + "unauthorized")


def test_tls_1_2_is_refused_between_key_managers(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path) as (one, two, _):
            tls = tls_of(one)
            tls.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await call(wire, two, "/kmapi/versions", None, tls, "GET")

    run(act)


def test_paths_and_verbs_are_the_standards(tmp_path, wire):
    async def act():
        async with two_key_managers(tmp_path) as (one, two, _):
            tls = tls_of(one)
            return [
                (await call(wire, two, path, b"{}", tls, verb))[0]
                for verb, path in (
                    ("POST", "/kmapi/versions"),
                    ("GET", EXT),
                    ("POST", "/kmapi/v2/ext_keys"),
                    ("POST", EXT + "/"),
                )
            ]

    assert run(act) == [405, 405, 404, 404]


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_after_a_restart_what_was_promised_still_goes_out(tmp_path):
    async def act():
        async with two_key_managers(tmp_path, stock=2) as (one, two, clock):
            await one.runner.tick()
            await two.server.close()
            await two.client.close()
            two.database.close()
            two.open(tmp_path, one, clock)
            await two.listen()
            await two.runner.tick()
            keys = one.supply.enc_keys("sae-1", "sae-2", 2)
            assert len(two.supply.dec_keys("sae-2", "sae-1", [k.key_id for k in keys])) == 2

    run(act)


def test_no_key_lies_in_the_clear_at_either_end(tmp_path):
    async def act():
        async with two_key_managers(tmp_path, stock=2) as (one, _, _):
            await one.runner.tick()
            (outgoing,) = one.store._outgoing("assigned", 1e9, 10, opened=True)
            secrets = [k.value for k in outgoing.keys]
            assert len(secrets) == 2
            for path in tmp_path.rglob("store.db*"):
                assert not any(secret in path.read_bytes() for secret in secrets), path
            assert not any(repr(secret) in repr(outgoing) for secret in secrets)

    run(act)


def test_a_full_pool_is_refused_with_proof_so_that_the_disk_is_not_filled(tmp_path, wire, monkeypatch):
    monkeypatch.setattr("heliograph.storage.foreign_keys.HELD_MAX", 2)

    async def act():
        async with two_key_managers(tmp_path, synchronous=True) as (one, two, _):
            tls = tls_of(one)
            return [(await call(wire, two, EXT, offer(key(), key()), tls))[0] for _ in range(2)]

    assert run(act) == [200, 400]


def test_an_offer_of_a_key_that_was_taken_before_its_pair_went_is_no_proof_that_it_was_not(tmp_path, wire):
    """Else the sender could give the key to somebody else, and the pair could come back by the next reload."""

    async def act():
        async with two_key_managers(tmp_path) as (one, two, _):
            given, callback, tls = key(), f"{one.url}{ACK}", tls_of(one)
            same = offer(given, callback=callback)
            first = await call(wire, two, EXT, same, tls)
            two.interworking.declare(list(two.interworking._peers.values()), synchronous=False, pairs=())
            again = await call(wire, two, EXT, same, tls)
            fresh = await call(wire, two, EXT, offer(key(), callback=callback), tls)
            gone = await call(wire, two, VOID, void(given["key_id"], callback=callback), tls)
            return [answer[0] for answer in (first, again, fresh, gone)], again[2]["details"], two.states()

    statuses, details, states = run(act)
    assert statuses == [202, 503, 400, 202]
    assert "void it" in str(details)
    assert list(states.values()) == ["voided"]


def test_a_repeated_offer_of_keys_that_are_held_is_never_refused_for_want_of_room(tmp_path, wire, monkeypatch):
    """400 is the proof that none was taken: the sender could give the same keys to somebody else."""
    monkeypatch.setattr("heliograph.storage.foreign_keys.HELD_MAX", 2)

    async def act():
        async with two_key_managers(tmp_path, synchronous=True) as (one, two, _):
            same, tls = offer(key(), key()), tls_of(one)
            return [(await call(wire, two, EXT, same, tls))[0] for _ in range(2)]

    assert run(act) == [200, 200]


@pytest.mark.parametrize("who", [0, 1])
def test_a_store_that_is_held_up_does_not_hold_the_loop(tmp_path, who):
    """The link's frames, and every other door, run on the same loop: what waits for the disk waits beside it."""

    async def act():
        async with two_key_managers(tmp_path, stock=3) as (one, two, _):
            await one.runner.tick()  # so that both have something to do
            manager = (one, two)[who]
            held, release = threading.Event(), threading.Event()

            def slow_disk():
                with manager.database.transaction():
                    held.set()
                    return release.wait(10)

            disk = asyncio.get_running_loop().run_in_executor(None, slow_disk)
            await asyncio.to_thread(held.wait)
            tick = asyncio.create_task(manager.runner.tick())
            for _ in range(50):
                await asyncio.sleep(0)
            assert not tick.done()  # it does wait for the store
            release.set()
            assert await disk  # and the loop came to let it go, before the disk gave up by itself
            await tick

    run(act)
