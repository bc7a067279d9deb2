"""The boundary of a site, as its file declares it: what is not listed is shut, contradictions are refused."""

import asyncio
import contextlib
import os
import pwd

import pytest
from site_on_disk import SiteOnDisk, make_site

from heliograph.errors import ConfigurationError, InsufficientKeys, KeyNotFound, NotPermitted
from heliograph.kme.boundary import Boundary, Way, read_network
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.site.boundary_entry import BoundaryEntry, SiteBoundary
from heliograph.site.config import read_site
from heliograph.site.delivery import InProcessDelivery, InProcessKeySource
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.testing.clock import ManualClock
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

SAES = {"sae-a", "sae-2"}
ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("boundary") / "site"
    return SiteOnDisk(make_site(directory, light=directory.parent / "light.sock"))


@pytest.fixture
def site(made, tmp_path):
    return made.copy(tmp_path / "site")


def test_nothing_declared_is_the_lan_for_everybody():
    rules = SiteBoundary.read(None, None, SAES).boundary
    rules.check("sae-a", Way.CERTIFICATE)
    for way in (Way.USER, Way.IN_PROCESS):
        with pytest.raises(NotPermitted):
            rules.check("sae-a", way)


@pytest.mark.parametrize("way", list(Way))
def test_a_consumer_has_the_one_way_that_is_listed(way):
    rules = Boundary(frozenset({"lan"}), users={"u": "host"}, in_process=frozenset({"unit"}))
    homes = {Way.CERTIFICATE: "lan", Way.USER: "host", Way.IN_PROCESS: "unit"}
    for of, sae in homes.items():
        if of is way:
            rules.check(sae, way)
        else:
            with pytest.raises(NotPermitted, match="boundary does not admit"):
                rules.check(sae, way)
    with pytest.raises(NotPermitted):
        rules.check("unlisted", way)


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        ({"certificates": ["sae-a"], "in_process": ["sae-a"]}, "has two ways"),
        ({"certificates": ["sae-a", "sae-a"]}, "comes twice"),
        ({"certificates": ["sae-q"]}, "is in no pair"),
        ({"in_process": ["sae-q"]}, "is in no pair"),
        ({"users": {ME: "sae-q"}, "socket": "s"}, "is in no pair"),
        ({"users": {"no-such-user-here": "sae-a"}, "socket": "s"}, "no user 'no-such-user-here'"),
        ({"users": {ME: "sae-a", str(os.getuid()): "sae-2"}, "socket": "s"}, "the same Unix user"),
        ({"users": {ME: "sae-a"}}, "go together"),
        ({"socket": "s"}, "go together"),
        ({"users": {ME: "sae-a"}, "socket": "x" * 200}, "too long"),
        ({"networks": ["192.0.2.1/24"]}, "network '192.0.2.1/24'"),
        ({"networks": ["everywhere"]}, "network 'everywhere'"),
    ],
)
def test_a_boundary_that_contradicts_itself_is_refused(entry, cause, tmp_path):
    with pytest.raises(ConfigurationError, match=cause):
        SiteBoundary.read(BoundaryEntry(**entry), tmp_path, SAES)


def test_the_site_file_names_the_entry(site):
    document = site.document()
    document["boundary"] = {"networks": ["nowhere"]}
    site.write(document)
    with pytest.raises(ConfigurationError, match=r"SITE.toml: boundary: network 'nowhere'"):
        read_site(site.toml)
    document["boundary"] = {"doors": []}
    site.write(document)
    with pytest.raises(ConfigurationError, match="doors"):
        read_site(site.toml)


def test_the_encryptor_has_a_certificate_or_is_in_process_never_both(site):
    document = site.document()
    document["boundary"] = {"in_process": ["sae-a"]}
    site.write(document)
    with pytest.raises(ConfigurationError, match="one way to its keys"):
        read_site(site.toml)
    del document["agent"]["certificate"], document["agent"]["key"]
    site.write(document)
    assert read_site(site.toml).boundary().boundary.in_process == {"sae-a"}
    document["boundary"] = {}
    site.write(document)
    with pytest.raises(ConfigurationError, match="one way to its keys"):
        read_site(site.toml)


def test_an_encryptor_that_the_boundary_leaves_out_is_refused_at_the_start(site):
    document = site.document()
    document["boundary"] = {"certificates": []}
    site.write(document)
    with pytest.raises(ConfigurationError, match="does not admit this SAE by certificate"):
        read_site(site.toml)


@pytest.mark.parametrize("text", ["192.0.2.0/24", "2001:db8::/32", "127.0.0.1/32"])
def test_networks_of_both_families_are_read(text):
    assert str(read_network(text)) == text


# -- in the same process ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def supplied(directory):
    FileKek.create(directory / "kek", SystemRandomness())
    database = Database(directory / "s" / "store.db", FileKek(directory / "kek", SystemRandomness()))
    keys = KeyRecords(database, SystemRandomness())
    rows = [
        NewKey(
            f"00000000-0000-4000-8000-00000000000{n}",
            "sae-a",
            "sae-b",
            owner_here=True,
            material=os.urandom(32),
            created_at=0.0,
        )
        for n in (1, 2)
    ]
    held = [
        NewKey(
            "00000000-0000-4000-8000-000000000009",
            "sae-b",
            "sae-a",
            owner_here=False,
            material=os.urandom(32),
            created_at=0.0,
        )
    ]
    with database.transaction() as cursor:
        keys.add(cursor, 1, 1, rows + held)
        keys.acknowledge(cursor, 1, 1)
    pair = SaePair("sae-a", "sae-b", "kme-b")
    yield Supply(keys, "kme-a", [pair], Limits(), ManualClock(1.0)), rows, held
    database.close()


INSIDE = Boundary(in_process=frozenset({"sae-a"}))


def test_in_process_delivery_gives_each_key_once(tmp_path):
    async def act(supply, rows, held):
        source = InProcessKeySource(supply, INSIDE, "sae-a", "sae-b")
        try:
            got = [await source.get_key(), await source.get_key()]
            assert [(k.key_id, k.material) for k in got] == [(r.key_id, r.material) for r in rows]
            with pytest.raises(InsufficientKeys):
                await source.get_key()
            named = await source.get_key_with_id(held[0].key_id.upper())
            assert named.material == held[0].material
            with pytest.raises(KeyNotFound):
                await source.get_key_with_id(held[0].key_id)
        finally:
            await source.close()

    with supplied(tmp_path) as (supply, rows, held):
        asyncio.run(act(supply, rows, held))


def test_who_is_not_listed_has_no_call_into_the_supply(tmp_path):
    with supplied(tmp_path) as (supply, _, _):
        for boundary in (Boundary(), Boundary(in_process=frozenset({"sae-2"})), Boundary(users={"u": "sae-a"})):
            with pytest.raises(NotPermitted):
                InProcessDelivery(supply, boundary, "sae-a", "sae-b")
        with pytest.raises(NotPermitted):
            InProcessDelivery(supply, Boundary(in_process=frozenset({"sae-x"})), "sae-x", "sae-b")
        assert InProcessDelivery(supply, INSIDE, "sae-a", "sae-b").status().stored_key_count == 2
