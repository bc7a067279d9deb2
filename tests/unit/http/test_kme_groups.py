"""Groups of SAEs, extensions and quotas, as an SAE sees them over mutual TLS."""

import asyncio
import json
import os
import time
import uuid

import pytest

from heliograph.errors import StoreUnavailable
from heliograph.kme.groups import SaeGroup
from heliograph.kme.quotas import Quota, Quotas
from heliograph.kme.supply import Limits
from heliograph.protocol.audience import audience_name
from heliograph.storage.keys import NewKey
from heliograph.storage.local_keys import LocalKeys
from heliograph.testing.clock import ManualClock
from heliograph.vault.randomness import SystemRandomness

ENC = "/api/v1/keys/sae-b/enc_keys"
UNMET = "not all extension_mandatory request options could be met"
GROUPS = (
    SaeGroup("sae-a", ("sae-b", "sae-c", "sae-2"), frozenset({"sae-a", "sae-2"})),
    SaeGroup("sae-b", ("sae-a", "sae-2"), frozenset({"sae-a", "sae-2"})),
    SaeGroup("sae-a", ("sae-2", "sae-3"), frozenset({"sae-a", "sae-2", "sae-3"})),
)
REPORT = {
    "eps_sec": 1e-10,
    "eps_cor": 1e-12,
    "key": {"detections": [900, 100], "errors": [9, 1]},
    "assurance": "information-theoretic since the bootstrap",
}


def group_keys(number, master, slaves, *, here, shares):
    return [
        NewKey(str(uuid.uuid4()), master, audience_name(slaves), here, os.urandom(32), 100.0, shares)
        for _ in range(number)
    ]


def wanting(number=1, also=(), **extensions):
    body = {"number": number, "extension_mandatory": [extensions]} if extensions else {"number": number}
    return json.dumps(body | ({"additional_slave_SAE_IDs": list(also)} if also else {})).encode()


def test_one_request_gives_one_key_to_the_master_and_to_a_slave_beside_it(site, wire):
    (row,) = site.add(group_keys(1, "sae-a", ["sae-b", "sae-c", "sae-2"], here=True, shares=("sae-2",)))
    tls = {name: site.sae_tls(name) for name in ("sae-a", "sae-2")}
    body = wanting(also=["sae-2", "sae-c"])
    dec = f"/api/v1/keys/sae-a/dec_keys?key_ID={row.key_id}"

    async def act(kme):
        status = await wire.ask(kme.port, tls["sae-a"], "GET", "/api/v1/keys/sae-b/status")
        early = await wire.ask(kme.port, tls["sae-2"], "GET", dec)
        master = await wire.ask(kme.port, tls["sae-a"], "POST", ENC, body)
        slave = await wire.ask(kme.port, tls["sae-2"], "GET", dec)
        return status, early, master, slave, await wire.ask(kme.port, tls["sae-2"], "GET", dec)

    status, early, master, slave, again = site.run(act, groups=GROUPS)
    assert status[2]["max_SAE_ID_count"] == 2
    assert early[0] == again[0] == 400
    assert wire.served(master[2]) == wire.served(slave[2]) == [(row.key_id, row.material)]


def test_each_slave_of_this_site_fetches_a_key_that_the_other_site_made(site, wire):
    rows = site.add(group_keys(2, "sae-b", ["sae-a", "sae-2"], here=False, shares=("sae-a", "sae-2")))
    wanted = json.dumps({"key_IDs": [{"key_ID": row.key_id} for row in rows]}).encode()
    tls = {name: site.sae_tls(name) for name in ("sae-a", "sae-2")}

    async def act(kme):
        return [
            await wire.ask(kme.port, tls[name], "POST", "/api/v1/keys/sae-b/dec_keys", wanted)
            for name in ("sae-a", "sae-2", "sae-a", "sae-2")
        ]

    one, two, *again = site.run(act, groups=GROUPS)
    assert wire.served(one[2]) == wire.served(two[2]) == [(row.key_id, row.material) for row in rows]
    assert [answer[0] for answer in again] == [400, 400]


def test_saes_of_one_key_manager_share_keys_that_never_cross_the_link(site, wire):
    tls = {name: site.sae_tls(name) for name in ("sae-a", "sae-2", "sae-3")}

    async def act(kme):
        path = "/api/v1/keys/sae-2/enc_keys"
        answer = await wire.ask(
            kme.port, tls["sae-a"], "POST", path, wanting(also=["sae-3"], heliograph_key_facts=True)
        )
        key_id = answer[2]["keys"][0]["key_ID"]
        dec = f"/api/v1/keys/sae-a/dec_keys?key_ID={key_id}"
        return answer, [await wire.ask(kme.port, tls[name], "GET", dec) for name in ("sae-2", "sae-3", "sae-3")]

    issue = LocalKeys(site.database, site.keys, SystemRandomness()).issue
    answer, slaves = site.run(act, groups=GROUPS, issue=issue)
    assert wire.served(slaves[0][2]) == wire.served(slaves[1][2]) == wire.served(answer[2])
    assert slaves[2][0] == 400
    assert answer[2]["keys"][0]["key_extension"] == {
        "heliograph_protocol": "local",
        "heliograph_assurance": "computational",
        "heliograph_age_s": 0.0,
    }
    assert answer[2]["key_container_extension"] == {"heliograph_path": ["kme-a"]}


def test_the_path_of_a_groups_key_names_the_other_site_whichever_slave_is_asked_for(site, wire):
    slaves = ["sae-2", "sae-b", "sae-c"]
    (row,) = site.add(group_keys(1, "sae-a", slaves, here=True, shares=("sae-2",)))
    tls = {name: site.sae_tls(name) for name in ("sae-a", "sae-2")}
    named = {"key_IDs": [{"key_ID": row.key_id}], "key_IDs_extension": {"heliograph_key_facts": True}}

    async def act(kme):
        enc, dec = "/api/v1/keys/sae-2/enc_keys", "/api/v1/keys/sae-a/dec_keys"
        master = await wire.ask(
            kme.port, tls["sae-a"], "POST", enc, wanting(also=slaves[1:], heliograph_key_facts=True)
        )
        return master, await wire.ask(kme.port, tls["sae-2"], "POST", dec, json.dumps(named).encode())

    for status, _, answer in site.run(act, groups=GROUPS):
        assert status == 200
        assert answer["key_container_extension"] == {"heliograph_path": ["kme-a", "kme-b"]}


@pytest.mark.parametrize(
    ("also", "message"),
    [
        (["sae-c"], "not registered to share a key"),  # part of a group is no group
        (["sae-c", "sae-q"], "not registered to share a key"),
        (["sae-b", "sae-c"], "comes twice, or is the one in the path"),
        (["sae-c", "sae-c"], "blank or comes twice"),
        (["sae-c", " "], "blank or comes twice"),
        (["sae-c", "sae-2", "sae-3"], "max_SAE_ID_count = 2"),
    ],
)
def test_a_request_cannot_make_up_a_group(site, wire, also, message):
    site.add(group_keys(1, "sae-a", ["sae-b", "sae-c", "sae-2"], here=True, shares=("sae-2",)))
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    status, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "POST", ENC, wanting(also=also)), groups=GROUPS)
    assert status == 400
    assert message in answer["message"]
    assert site.keys.delivered_counts() == (0, 0)


def test_the_facts_of_a_key_are_told_when_asked_for(site, wire):
    rows = site.add([NewKey(str(uuid.uuid4()), "sae-a", "sae-b", True, os.urandom(32), 100.0)], json.dumps(REPORT))  # noqa: FBT003
    rows += site.add([NewKey(str(uuid.uuid4()), "sae-b", "sae-a", False, os.urandom(32), 100.0)], json.dumps(REPORT))  # noqa: FBT003
    tls = site.sae_tls("sae-a")
    named = {"key_IDs": [{"key_ID": rows[1].key_id}], "key_IDs_extension": {"heliograph_key_facts": True}}

    async def act(kme):
        return [
            await wire.ask(
                kme.port, tls, "POST", ENC, b'{"extension_optional": [{"abc_x": 1}, {"heliograph_key_facts": true}]}'
            ),
            await wire.ask(kme.port, tls, "POST", "/api/v1/keys/sae-b/dec_keys", json.dumps(named).encode()),
        ]

    for (status, _, answer), block in zip(site.run(act), (1, 2), strict=True):
        assert status == 200
        assert answer["keys"][0]["key_extension"] == {
            "heliograph_protocol": "decoy-state BB84",
            "heliograph_block": [1, block],
            "heliograph_assurance": "information-theoretic since the bootstrap",
            "heliograph_age_s": 100.0,
            "heliograph_epsilon": pytest.approx(1.01e-10),
            "heliograph_qber": 0.01,
        }
        assert answer["key_container_extension"] == {"heliograph_path": ["kme-a", "kme-b"]}


@pytest.mark.parametrize(
    ("extensions", "status", "message"),
    [
        ({"heliograph_max_age_s": 100}, 200, None),
        ({"heliograph_max_age_s": 99.5}, 400, UNMET),
        ({"heliograph_assurance": "computational"}, 200, None),
        ({"heliograph_assurance": "information-theoretic since the bootstrap"}, 200, None),
        ({"heliograph_assurance": "information-theoretic"}, 400, UNMET),
        ({"heliograph_max_age_s": True}, 400, "must be a number"),
        ({"heliograph_max_age_s": -1}, 400, "must be a number"),
        ({"heliograph_assurance": ["x"]}, 400, "must be one of"),
        ({"heliograph_key_facts": 1}, 400, "must be true or false"),
        ({"heliograph_other": 1}, 400, "not all extension_mandatory parameters are supported"),
    ],
)
def test_a_mandatory_extension_is_met_or_nothing_is_taken(site, wire, extensions, status, message):
    site.add([NewKey(str(uuid.uuid4()), "sae-a", "sae-b", True, os.urandom(32), 100.0)], json.dumps(REPORT))  # noqa: FBT003
    tls = site.sae_tls("sae-a")
    found, _, answer = site.run(lambda kme: wire.ask(kme.port, tls, "POST", ENC, wanting(**extensions)))
    assert found == status
    assert message is None or message in answer["message"]
    assert site.keys.stored_key_count("sae-a", "sae-b") == (0 if status == 200 else 1)


def test_too_few_keys_stay_a_503_whatever_their_age(site, wire):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    body = wanting(2, heliograph_max_age_s=1000)
    assert site.run(lambda kme: wire.ask(kme.port, tls, "POST", ENC, body))[0] == 503


def test_a_quota_of_a_pair_is_exact_and_leaves_the_other_pairs_alone(site, wire):
    site.add_owned(20)
    site.add_owned(5, slave="sae/with slash")
    clock = ManualClock(0.0)
    quotas = Quotas(clock, keys={("sae-a", "sae-b"): Quota(3, 0.5)})
    tls = site.sae_tls("sae-a")

    async def act(kme):
        first = [(await wire.ask(kme.port, tls, "GET", ENC))[0] for _ in range(5)]
        refused = await wire.ask(kme.port, tls, "GET", ENC)
        other = (await wire.ask(kme.port, tls, "GET", "/api/v1/keys/sae%2Fwith%20slash/enc_keys?number=5"))[0]
        clock.advance(4.0)
        return first, refused, other, [(await wire.ask(kme.port, tls, "GET", ENC))[0] for _ in range(3)]

    first, refused, other, later = site.run(act, quotas=quotas)
    assert first == [200, 200, 200, 503, 503]
    assert "3 keys at once and 1800 an hour" in refused[2]["message"]
    assert refused[1]["retry-after"] == "1"
    assert other == 200
    assert later == [200, 200, 503]
    assert site.keys.stored_key_count("sae-a", "sae-b") == 15


def test_the_reserve_is_for_the_key_managers_own_messages(site, wire):
    site.add_owned(10)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        status = await wire.ask(kme.port, tls, "GET", "/api/v1/keys/sae-b/status")
        answers = [(await wire.ask(kme.port, tls, "GET", f"{ENC}?number={n}"))[0] for n in (3, 2, 1)]
        own = kme._supply.draw("sae-a", "sae-b", 8)
        return status, answers, own

    status, answers, own = site.run(act, limits=Limits(reserve=8))
    assert status[2]["stored_key_count"] == 2
    assert answers == [503, 200, 503]
    assert len(own) == 8


def test_a_greedy_sae_is_held_back_and_the_others_are_served_at_once(site, wire):
    site.add_owned(200)
    tls = {name: site.sae_tls(name) for name in ("sae-a", "sae-2")}
    quotas = Quotas(ManualClock(0.0), requests=Quota(150, 1.0))
    path = "/api/v1/keys/sae-b/status"

    async def act(kme):
        async def greedy():
            return [(await wire.ask(kme.port, tls["sae-a"], "GET", ENC))[0] for _ in range(40)]

        async def modest():
            found = []
            for _ in range(100):
                begun = time.perf_counter()
                answer = await wire.ask(kme.port, tls["sae-2"], "GET", path)
                found.append((time.perf_counter() - begun, answer[0]))
            return found

        *flood, others = await asyncio.gather(*(greedy() for _ in range(8)), modest())
        return [status for part in flood for status in part], others

    flood, others = site.run(act, quotas=quotas)
    assert flood.count(200) == 150
    assert set(flood) == {200, 503}
    assert {status for _, status in others} == {200}
    assert sorted(wait for wait, _ in others)[98] < 1.0
    assert site.keys.stored_key_count("sae-a", "sae-b") == 50


def test_who_was_not_named_stays_refused_after_the_key_is_gone(site, wire):
    """Clause 5.4: 401 unless the caller was a slave of every Get key call that returned one of these keys."""
    (row,) = site.add_held(1)
    (mine,) = site.add_owned(1)
    tls = {name: site.sae_tls(name) for name in ("sae-a", "sae-2")}
    dec = "/api/v1/keys/sae-b/dec_keys?key_ID="

    async def act(kme):
        await wire.ask(kme.port, tls["sae-a"], "GET", ENC)
        return [
            (await wire.ask(kme.port, tls[name], "GET", dec + key_id))[0]
            for name, key_id in (
                ("sae-2", row.key_id),
                ("sae-a", row.key_id),
                ("sae-a", row.key_id),
                ("sae-2", row.key_id),
                ("sae-a", mine.key_id),  # the master is no slave of its own key
            )
        ]

    assert site.run(act) == [401, 200, 400, 401, 401]


def test_a_request_whose_group_is_not_committed_costs_no_quota(site, wire):
    site.add_owned(4)
    tls = site.sae_tls("sae-a")
    quotas = Quotas(ManualClock(0.0), keys={("sae-a", "sae-b"): Quota(2, 0.001)})
    disk = {"full": True}

    def run(calls):
        outcomes = [call() for call in calls]
        return [StoreUnavailable("the disk is full")] * len(calls) if disk["full"] else outcomes

    async def act(kme):
        kme.commit_together(run)
        refused = await wire.ask(kme.port, tls, "GET", f"{ENC}?number=2")
        disk["full"] = False
        return refused[0], [(await wire.ask(kme.port, tls, "GET", f"{ENC}?number={n}"))[0] for n in (2, 1, 3)]

    refused, later = site.run(act, quotas=quotas)
    assert refused == 503
    assert later == [200, 503, 400]  # had; used up for now; above what can ever be had at once
