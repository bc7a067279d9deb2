"""Who may have keys at a site: derived once, from the registration and [kme], and refused in one line."""

import dataclasses
import os
import uuid

import pytest

from heliograph.errors import ConfigurationError
from heliograph.kme.supply import SaePair
from heliograph.protocol.registration import SaePair as Registered
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.one_link import trim_keys
from heliograph.site.supply_plan import GroupEntry, KmeEntry, QuotaEntry, plan_quotas, plan_supply, reserve_of
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.testing.links import quick_registration
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

GROUP = Registered("sae-a", "sae-b", ("sae-b2",), ("sae-a2",))
LINK = dataclasses.replace(quick_registration(), transmitter_pairs=(Registered("sae-a", "sae-b"), GROUP))


def entry(**more):
    return KmeEntry(id="kme-a", peer_id="kme-b", listen="x:1", certificate="c", key="k", ca="a", **more)


def test_both_sites_derive_their_own_saes_and_the_same_audiences():
    a = plan_supply(entry(), LINK, is_transmitter=True)
    b = plan_supply(entry(), LINK, is_transmitter=False)
    assert a.saes == {"sae-a", "sae-a2"}
    assert b.saes == {"sae-b", "sae-b2"}
    assert set(a.pairs) == {SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-a", "sae-b2", "kme-b")}
    assert {(p.local_sae, p.remote_sae) for p in b.pairs} == {("sae-b", "sae-a"), ("sae-b2", "sae-a")}
    assert [(m, s, not here) for m, s, here in a.stocks] == [(m, s, here) for m, s, here in b.stocks[1:] + b.stocks[:1]]
    assert (a.groups[0].here, b.groups[0].here) == ({"sae-a", "sae-a2"}, {"sae-b", "sae-b2"})
    assert not a.groups[0].local


def test_a_group_of_the_site_file_is_local():
    plan = plan_supply(entry(groups=[GroupEntry("sae-a", ["sae-3"])]), LINK, is_transmitter=True)
    assert plan.groups[1].local
    assert ("sae-a", "sae-3", True) in plan.stocks
    assert plan.saes == {"sae-a", "sae-a2", "sae-3"}


def test_both_sites_derive_the_same_sizes_and_an_entry_without_any_has_the_links():
    pairs = (dataclasses.replace(LINK.transmitter_pairs[0], key_sizes=(128, 512)), GROUP)
    link = dataclasses.replace(LINK, transmitter_pairs=pairs)
    a, b = (plan_supply(entry(), link, is_transmitter=here).sizes for here in (True, False))
    assert a == b
    assert a.of("sae-a", "sae-b") == (128, 512)
    assert a.of("sae-a", GROUP.audience) == a.of("sae-b", "sae-a") == (256,)


def test_a_local_group_may_have_sizes_of_its_own():
    plan = plan_supply(entry(groups=[GroupEntry("sae-a", ["sae-3"], [512, 64])]), LINK, is_transmitter=True)
    assert plan.sizes.of("sae-a", "sae-3") == (512, 64)
    assert plan.sizes.of("sae-a", "sae-b") == (256,)


def check(kme):
    kme.check()
    plan_supply(kme, LINK, is_transmitter=True)
    plan_quotas(kme, MonotonicClock())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"groups": [GroupEntry("sae-a", ["x"], [100])]}, "a multiple of 8, 64 to 4096"),
        ({"groups": [GroupEntry("sae-a", ["x"], [64, 64])]}, "each once"),
        ({"groups": [GroupEntry("sae-a", ["sae-b"])]}, "is at the other site"),
        ({"groups": [GroupEntry("sae-a", [])]}, "at least one slave"),
        ({"groups": [GroupEntry("sae-a", ["sae-a"])]}, "each once"),
        ({"groups": [GroupEntry("sae-a", ["x"]), GroupEntry("sae-a", ["x"])]}, "registered twice"),
        ({"quotas": [QuotaEntry("sae-a", ["sae-b2"], 1.0, 1)]}, "is no pair or group"),
        ({"quotas": [QuotaEntry("sae-b", ["sae-a"], 1.0, 1)]}, "is no pair or group"),
        ({"quotas": [QuotaEntry("sae-a", ["sae-b"], 0.0, 1)]}, "above 0"),
        ({"quotas": [QuotaEntry("sae-a", ["sae-b"], float("nan"), 1)]}, "above 0"),
        ({"quotas": [QuotaEntry("sae-a", ["sae-b"], 1.0, 1)] * 2}, "keep one"),
        ({"requests_per_s": -1.0}, "above 0"),
        ({"key_ttl_s": 1.0}, "key_ttl_s = 1.0"),
        ({"key_ttl_s": float("nan")}, "key_ttl_s = nan"),
        ({"reserve": -1}, "reserve = -1"),
        ({"max_key_per_request": 0}, "max_key_per_request = 0"),
    ],
)
def test_a_contradictory_entry_is_refused_in_one_line(more, message):
    with pytest.raises(ConfigurationError, match=message) as refusal:
        check(entry(**more))
    assert "\n" not in str(refusal.value)


def test_a_reserve_is_kept_where_key_managers_write_to_each_other():
    assert (reserve_of(entry(), streams=False), reserve_of(entry(), streams=True)) == (0, 8)
    assert reserve_of(entry(reserve=3), streams=True) == 3


def test_keys_beyond_their_time_to_live_are_erased_and_a_slave_has_twice_that(tmp_path):
    FileKek.create(tmp_path / "kek", SystemRandomness())
    database = Database(":memory:", FileKek(tmp_path / "kek", SystemRandomness()))
    keys = KeyRecords(database, SystemRandomness())
    now = WallClock().now()
    rows = [
        NewKey(str(uuid.uuid4()), *names, os.urandom(32), now - age)
        for names in (("sae-a", "sae-b", True), ("sae-b", "sae-a", False))
        for age in (50, 150, 250)
    ]
    with database.transaction() as cursor:
        keys.add(cursor, 1, 1, rows)
        keys.acknowledge(cursor, 1, 1)
    trim_keys(keys, plan_supply(entry(), LINK, is_transmitter=True), 1000, 100.0)
    assert (keys.counts("sae-a", "sae-b").deliverable, keys.counts("sae-b", "sae-a").held) == (1, 2)
    database.close()
