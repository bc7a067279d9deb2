"""Links of one site share a process and a key manager, and nothing else; whoever lets them is told so in one line."""

import asyncio
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from site_on_disk import SiteOnDisk, listening, make_site
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.lab.ports import free_ports
from heliograph.protocol.registration import SaePair
from heliograph.site.added_link import LinkSetup, add_link
from heliograph.site.anchors import open_anchors
from heliograph.site.config import parse_address, read_registration, read_site
from heliograph.site.credentials import PeerFiles
from heliograph.site.kek import open_kek
from heliograph.site.live_settings import site_changes
from heliograph.site.one_link import open_link
from heliograph.site.register import register
from heliograph.site.store import open_database
from heliograph.site.workers import Workers
from heliograph.storage.keys import NewKey
from heliograph.storage.store_seal import StoreSeal
from heliograph.testing.links import example_registration
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.bound_vault import BoundVault
from heliograph.vault.pskfile import create_book
from heliograph.vault.randomness import SystemRandomness

RUN = (sys.executable, "-m", "heliograph.cli.main", "site", "run")


def further_registration(**changes):
    return replace(
        example_registration(),
        **{
            "link": "a-c",
            "receiver_site": "site-c",
            "transmitter_pairs": (SaePair("sae-a", "sae-c"),),
            "receiver_pairs": (SaePair("sae-c", "sae-a"),),
            **changes,
        },
    )


def give_further_link(toml, light):
    """Add a link to site C, with a book of its own, and register it."""
    dial = f"127.0.0.1:{free_ports(1)[0]}"
    setup = LinkSetup(further_registration(), None, {"address": f"unix:{light}"}, dial, peer_kme_id="kme-c")
    view = add_link(read_site(toml), setup)
    create_book(view.path(view.file.link.book), SystemRandomness())
    register(view, "Ann", PeerFiles())


@pytest.fixture(scope="module")
def pattern():
    with tempfile.TemporaryDirectory(prefix="hgl") as name:
        site = SiteOnDisk(make_site(Path(name) / "site", light=Path(name) / "light"))
        give_further_link(site.toml, Path(name) / "light-c")
        yield site


@pytest.fixture
def site(pattern):
    with tempfile.TemporaryDirectory(prefix="hgl") as name:
        yield pattern.copy(Path(name) / "site")


def change(site, **entries):
    """Change entries of the further link; ``None`` removes one."""
    document = site.document()
    (link,) = document["further_links"]
    link.update(entries)
    document["further_links"] = [{name: value for name, value in link.items() if value is not None}]
    site.write(document)


def agree(site, registration):
    """Write another registration for the further link."""
    view = read_site(site.toml).further[0]
    view.path(view.file.link.registration).write_bytes(msgspec.json.encode(registration))


def refused(words, *says):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 1, (done.output, done.exception)
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("heliograph: ")
    assert "internal error" not in line
    for word in says:
        assert word in line, line
    return line


# What the links of one site may not share.
SHARED = {
    "one store": ({"store": "store/site.db"}, ["store", "a-b"]),
    "one anchor": ({"anchor": "anchor"}, ["anchor", "a-b"]),
    "the count of openings as an anchor": ({"anchor": "anchor.runs"}, ["anchor.runs", "a-b"]),
    "an anchor in the other's store": ({"anchor": "store/anchor"}, ["outside", "a-b"]),
    "an anchor in its own store": ({"anchor": "links/2/store/anchor"}, ["outside", "a-c"]),
    "one trust": ({"trust": "trust"}, ["trust", "a-b"]),
    "one book": ({"book": "psk.book"}, ["book", "a-b"]),
    "one file twice": ({"store": "links/2/trust"}, ["must be different files"]),
    "this key manager as the peer's": ({"peer_id": "kme-a"}, ["peer_id", "kme-a"]),
    "one key manager at two sites": ({"peer_id": "kme-b"}, ["site-b", "site-c", "kme-b"]),
    "both ways to connect": ({"listen": "127.0.0.1:7999"}, ["[further_links] needs exactly one of dial and listen"]),
    "the wrong end": ({"role": "receiver"}, ["a-c", "site-c"]),
    "no way in": ({"book": None}, ["[further_links] book", "missing"]),
    "too many blocks": ({"in_flight": 9}, ["a-c", "in_flight = 9"]),
    "an entry that is none": ({"peerid": "x"}, ["peerid", "further_links"]),
}


@pytest.mark.parametrize("case", SHARED)
def test_what_only_one_link_may_have_is_refused(site, case):
    entries, says = SHARED[case]
    change(site, **entries)
    before = site.snapshot()
    refused(["site", "run", site.toml], *says)
    assert site.snapshot() == before


def test_one_device_on_two_links_is_refused(site):
    change(site, module=site.document()["module"])
    refused(["site", "run", site.toml], "a-b", "a-c", "module")


def test_one_port_for_two_links_is_refused(site):
    document = site.document()
    document["link"]["listen"] = document["link"].pop("dial")
    site.write(document)
    change(site, dial=None, listen=document["link"]["listen"])
    refused(["site", "run", site.toml], "a-b", "a-c", "listen")


# What two registrations may not say of SAEs.
PAIRS = {
    "a pair on two links": (
        {"transmitter_pairs": (SaePair("sae-a", "sae-b"),), "receiver_pairs": (), "receiver_site": "site-b"},
        "kme-b",
        ["sae-a", "sae-b", "two links"],
    ),
    "the same pair the other way": (
        {"transmitter_pairs": (), "receiver_pairs": (SaePair("sae-b", "sae-a"),), "receiver_site": "site-b"},
        "kme-b",
        ["sae-a", "sae-b", "two links"],
    ),
    "a pair inside a group of the other link": (
        {
            "transmitter_pairs": (SaePair("sae-a", "sae-b2", also_there=("sae-b",)),),
            "receiver_pairs": (),
            "receiver_site": "site-b",
        },
        "kme-b",
        ["sae-a", "sae-b", "two links"],
    ),
    "an SAE at two other sites": (
        {"transmitter_pairs": (SaePair("sae-a2", "sae-b"),), "receiver_pairs": ()},
        "kme-c",
        ["sae-b", "kme-b", "kme-c"],
    ),
    "an SAE here and there": (
        {"transmitter_pairs": (SaePair("sae-b", "sae-c"),), "receiver_pairs": ()},
        "kme-c",
        ["sae-b", "at this site"],
    ),
    "no name": ({"link": ""}, "kme-c", ["no name"]),
    "the name of the other link": ({"link": "a-b"}, "kme-c", ["a-b", "the same name"]),
}


@pytest.mark.parametrize("case", PAIRS)
def test_registrations_that_contradict_each_other_are_refused(site, case):
    entries, peer_id, says = PAIRS[case]
    agree(site, further_registration(**entries))
    change(site, peer_id=peer_id)
    refused(["site", "run", site.toml], *says)


def test_a_group_of_this_site_with_an_sae_at_the_end_of_a_further_link_is_refused(site):
    document = site.document()
    document["kme"]["groups"] = [{"master": "sae-a", "slaves": ["sae-c"]}]
    site.write(document)
    refused(["site", "run", site.toml], "sae-c", "at this site")


def test_a_second_link_to_the_same_site_is_fine(site):
    pairs = {"transmitter_pairs": (SaePair("sae-a2", "sae-b2"),), "receiver_pairs": ()}
    agree(site, further_registration(receiver_site="site-b", **pairs))
    change(site, peer_id="kme-b")
    assert [view.peer for view in read_site(site.toml).links] == ["site-b", "site-b"]


def test_copies_of_one_key_book_behind_two_links_are_refused_before_a_pad_is_used(site):
    view = read_site(site.toml).further[0]
    shutil.copy(site.directory / "psk.book", view.path(view.file.link.book))
    register(view, "Ann", PeerFiles(), replace=True)
    before = site.snapshot()
    refused(["site", "run", site.toml], "a-b", "a-c", "key book", "pad")
    assert site.snapshot() == before


def test_front_ends_serve_one_link_and_say_so(site):
    document = site.document()
    entry = {"name": "fe-1", "listen": "127.0.0.1:8443", "directory": "fe-1"}
    document["delivery"] = {"server": "host=/run/postgresql dbname=heliograph", "front_ends": [entry]}
    site.write(document)
    refused(["site", "run", site.toml], "[delivery] and [[further_links]]", "one link")


def test_a_command_for_one_link_of_several_must_name_it(site):
    for command in ("register", "rebootstrap"):
        words = ["site", command, site.toml, "--approver", "Ann", *(["--yes"] if command == "rebootstrap" else [])]
        refused(words, "--link", "a-b", "a-c")
        refused([*words, "--link", "a-d"], "a-d", "a-b", "a-c")


def test_quotas_and_sizes_are_those_of_the_links_own_pair(site):
    agree(site, further_registration(key_size_bits=512))
    document = site.document()
    document["kme"]["quotas"] = [{"master": "sae-a", "slaves": ["sae-c"], "keys_per_hour": 60.0, "burst": 8}]
    site.write(document)
    config = read_site(site.toml)
    plan = config.supply()
    assert plan.sizes.of("sae-a", "sae-b") == (256,)
    assert plan.sizes.of("sae-a", "sae-c") == plan.sizes.of("sae-c", "sae-a") == (512,)
    assert {(pair.remote_sae, pair.remote_kme, pair.link) for pair in plan.pairs} == {
        ("sae-b", "kme-b", ""),
        ("sae-c", "kme-c", "a-c"),
    }
    document["kme"]["quotas"][0]["slaves"] = ["sae-d"]
    site.write(document)
    refused(["site", "run", site.toml], "quotas", "sae-d")


def test_the_numbers_of_a_further_link_change_live_and_its_place_does_not(site):
    old = read_site(site.toml)
    change(site, keys_max=500, in_flight=3)
    assert {(s.name, s.live) for s in site_changes(old, read_site(site.toml))} == {
        ("[further_links] keys_max", True),
        ("[further_links] in_flight", True),
    }
    change(site, store="links/2/other/site.db")
    assert ("[further_links] store", False) in {(s.name, s.live) for s in site_changes(old, read_site(site.toml))}
    agree(site, further_registration(eps_total_max=1e-7))
    assert any("registration" in s.name and not s.live for s in site_changes(old, read_site(site.toml)))
    document = site.document()
    del document["further_links"]
    site.write(document)
    assert [(s.name, s.live) for s in site_changes(old, read_site(site.toml))] == [("[[further_links]]", False)]


# Trust.
def test_each_link_has_a_newest_act_of_its_own(site):
    first, further = read_site(site.toml).links
    register(further, "Ann", PeerFiles(), replace=True)
    open_anchors(first)  # what came later in the log is about the other one
    kept = site.directory / "kept"
    shutil.copytree(further.trust, kept)
    create_book(site.directory / "new.book", SystemRandomness())
    (site.directory / "new.book").replace(further.path(further.file.link.book))
    register(further, "Ann", PeerFiles(), replace=True)
    shutil.rmtree(further.trust)
    kept.rename(further.trust)
    with pytest.raises(ConfigurationError, match=r"another book|not what the audit log tells of last"):
        open_anchors(further)
    # The link goes; what the log says of it stays, and stops nobody.
    document = site.document()
    del document["further_links"]
    site.write(document)
    open_anchors(read_site(site.toml))


def test_an_old_trust_put_back_is_refused_though_the_log_goes_on_about_the_other_link(site):
    first, further = read_site(site.toml).links
    kept = site.directory / "kept"
    shutil.copytree(further.trust, kept)
    register(further, "Bob", PeerFiles(), replace=True)
    register(first, "Ann", PeerFiles(), replace=True)
    shutil.rmtree(further.trust)
    kept.rename(further.trust)
    with pytest.raises(ConfigurationError, match="not what the audit log tells of last"):
        open_anchors(further)


# Stores.
def test_what_is_sealed_for_one_links_store_does_not_open_in_anothers(site):
    kek = open_kek(read_site(site.toml))
    sealed = BoundVault(kek, "a-c").seal(b"a pad", b"row 1")
    assert BoundVault(kek, "a-c").unseal(sealed, b"row 1") == b"a pad"
    for other in (kek, BoundVault(kek, "a-d")):
        with pytest.raises(StoreUnavailable):
            other.unseal(sealed, b"row 1")


def test_a_links_store_put_in_anothers_place_is_not_opened(site):
    config = read_site(site.toml)
    first, further = config.links
    kek = open_kek(config)
    stores = [view.path(view.file.store) for view in (first, further)]
    for view, path in zip((first, further), stores, strict=True):
        database = open_database(path, kek, view.link_name)
        StoreSeal(database, FileAnchor(view.path(view.file.anchor)))
        database.close()
    shutil.copy(stores[0], stores[1])
    database = open_database(stores[1], kek, further.link_name)
    try:
        with pytest.raises(StoreUnavailable):
            StoreSeal(database, FileAnchor(further.path(further.file.anchor)))
    finally:
        database.close()


def test_an_erasure_takes_the_stores_of_all_links(site):
    views = read_site(site.toml).links
    for view in views:
        open_database(view.path(view.file.store), open_kek(view), view.link_name).close()
    done = CliRunner().invoke(app, ["store", "erase", str(site.toml), "--approver", "Ann", "--yes"])
    assert done.exit_code == 0, done.output
    for view in views:
        assert str(view.path(view.file.store)) in done.stdout
        assert not view.path(view.file.store).exists()


async def start(site):
    return await asyncio.create_subprocess_exec(
        *RUN, str(site.toml), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def run_once(site):
    process = await start(site)
    async with asyncio.timeout(60):
        line = await process.stdout.readline()
        assert json.loads(line) == {"ready": True}, (await process.stderr.read()).decode()
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


def openings(path):
    with sqlite3.connect(path) as store:
        (found,) = store.execute("SELECT runs FROM store_seal").fetchone()
    store.close()
    return found


@pytest.mark.slow
def test_an_old_copy_of_one_links_store_is_named_and_the_others_goes_on_after_the_remedy(pattern):
    async def scene(site):
        first, further = read_site(site.toml).links
        agreed = [view.path(view.file.store) for view in (first, further)]
        await run_once(site)
        kept = agreed[1].with_name("kept")
        shutil.copy(agreed[1], kept)
        await run_once(site)
        before = openings(agreed[0])
        kept.replace(agreed[1])
        process = await start(site)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        (line,) = err.decode().splitlines()
        assert process.returncode == 1
        assert out == b""
        for word in ("link 'a-c'", "old copy", "`heliograph site rebootstrap --link a-c`"):
            assert word in line, line
        assert openings(agreed[0]) == before + 1  # it was opened, and nothing in it was destroyed
        words = ["site", "rebootstrap", str(site.toml), "--link", "a-c", "--approver", "Ann", "--yes"]
        done = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert done.exit_code == 0, done.output
        await run_once(site)

    with tempfile.TemporaryDirectory(prefix="hgl") as name:
        site = pattern.copy(Path(name) / "site")
        document = site.document()
        document.pop("agent", None)
        document["module"]["settings"] = {"address": f"unix:{name}/light"}
        site.write(document)
        change(site, module={"name": "simulated-transmitter", "settings": {"address": f"unix:{name}/light-c"}})
        with listening(f"{name}/light"), listening(f"{name}/light-c"):
            asyncio.run(scene(site))


# heliograph site add-link
def test_a_link_is_added_by_a_command_and_what_it_says_next_works(tmp_path):
    site = SiteOnDisk(make_site(tmp_path / "site", light=tmp_path / "light"))
    (tmp_path / "link.json").write_bytes(msgspec.json.encode(further_registration()))
    words = ["site", "add-link", site.toml, "--registration", tmp_path / "link.json", "--dial", "192.0.2.3:7001"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert further_registration().digest().hex()[:32] in done.stdout
    view = read_site(site.toml).of_link("a-c")
    assert (view.peer, view.file.kme.peer_id) == ("site-c", "kme-site-c")
    assert read_registration(view.path(view.file.link.registration)) == further_registration()
    create_book(view.path(view.file.link.book), SystemRandomness())
    words = ["site", "register", site.toml, "--link", "a-c", "--approver", "Ann", "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["peer"] == "site-c"


@pytest.mark.parametrize(
    ("registration", "options", "says"),
    [
        (further_registration(transmitter_site="site-d"), [], ["site-a", "site-c", "site-d", "name the SITE.toml"]),
        (further_registration(link="a-b"), [], ["a-b", "the same name"]),
        (further_registration(), ["--listen", "127.0.0.1:7001"], ["exactly one of dial and listen"]),
        (further_registration(), ["--peer-kme", "kme-b"], ["kme-b", "site-c"]),
        (further_registration(), ["--dial", "192.0.2.3:7001:7002"], ["write host:port"]),
        pytest.param(further_registration(), ["--dial", "h:" + 5000 * "9"], ["write host:port"], id="an endless port"),
    ],
)
def test_a_link_that_the_site_cannot_have_is_not_added(tmp_path, registration, options, says):
    site = SiteOnDisk(make_site(tmp_path / "site", light=tmp_path / "light"))
    (tmp_path / "link.json").write_bytes(msgspec.json.encode(registration))
    before = site.snapshot()
    words = ["site", "add-link", site.toml, "--registration", tmp_path / "link.json"]
    line = refused([*words, *options, *([] if "--dial" in options else ["--dial", "192.0.2.3:7001"])], *says)
    assert ".draft" not in line
    after = site.snapshot()
    after.pop("links", None)
    assert after == before


def test_a_links_store_that_hangs_stops_neither_the_loop_nor_the_others_figures(site):
    config = read_site(site.toml)
    kek = open_kek(config)

    def hang(database, began, let_go):
        with database.transaction():
            began.set()
            assert let_go.wait(60)

    async def act():
        async with AsyncExitStack() as stack:
            compute = Workers()
            stack.callback(compute.close)
            links = [await open_link(view, kek, open_anchors(view, kek), compute, stack) for view in config.links]
            before = await asyncio.gather(*(link.status() for link in links))
            began, let_go = threading.Event(), threading.Event()
            stack.callback(let_go.set)
            hanging = asyncio.create_task(asyncio.to_thread(hang, links[1].store.database, began, let_go))
            await asyncio.to_thread(began.wait, 60)
            async with asyncio.timeout(30):  # never, if the loop stands still
                first, second = await asyncio.gather(*(link.status() for link in links))
                again = await links[1].status()
            let_go.set()
            await hanging
            return before, first, second, again, await links[1].status()

    before, first, second, again, after = asyncio.run(act())
    assert first == before[0]
    for told in (second, again):
        assert told[0].state == "store unavailable: the store does not answer; check its disk"
        assert told[1] == before[1][1]
    assert after == before[1]


def test_everybody_who_asks_for_figures_at_once_is_told_them(site):
    config = read_site(site.toml)
    kek = open_kek(config)

    async def act():
        async with AsyncExitStack() as stack:
            compute = Workers()
            stack.callback(compute.close)
            view = config.links[0]
            link = await open_link(view, kek, open_anchors(view, kek), compute, stack)

            async def often():
                return [await link.status() for _ in range(30)]

            told = await asyncio.gather(*(often() for _ in range(8)))
            return [one for each in told for one in each]

    told = asyncio.run(act())
    assert len(told) == 240
    assert all(one == told[0] for one in told)


def test_keys_whose_time_is_over_are_gone_before_a_door_can_open(site):
    document = site.document()
    document["kme"]["key_ttl_s"] = 3600
    site.write(document)
    config = read_site(site.toml)
    kek = open_kek(config)
    pairs = ("sae-a", "sae-b"), ("sae-a", "sae-c")

    def stored(store, pair):
        return store.keys.stored_key_count(*pair)

    async def act(made_at=None):
        async with AsyncExitStack() as stack:
            compute = Workers()
            stack.callback(compute.close)
            counts = []
            for view, pair in zip(config.links, pairs, strict=True):
                link = await open_link(view, kek, open_anchors(view, kek), compute, stack)
                counts.append(stored(link.store, pair))
                if made_at is not None:
                    with link.store.database.transaction() as cursor:
                        key = NewKey(str(uuid.uuid4()), *pair, True, bytes(32), made_at)  # noqa: FBT003
                        link.store.keys.add(cursor, 1, int(made_at), [key])
                        link.store.keys.acknowledge(cursor, 1, int(made_at))
            return counts

    now = time.time()
    asyncio.run(act(now - 3700))
    asyncio.run(act(now))
    assert asyncio.run(act()) == [1, 1]


def test_a_link_that_is_there_is_not_added_again(site):
    before = site.snapshot()
    (view,) = read_site(site.toml).further
    words = ["site", "add-link", site.toml, "--registration", view.path(view.file.link.registration)]
    refused([*words, "--dial", "192.0.2.3:7001"], "link 'a-c' is there already")
    assert site.snapshot() == before


def test_a_further_link_may_be_dialled_at_an_ipv6_address():
    assert parse_address("[2001:db8::1]:7001", "") == ("2001:db8::1", 7001)
    for text in ("2001:db8::1:7001", "[]:7001", "[::1]", "[[::1]]:7001", "h:\u0667"):
        with pytest.raises(ConfigurationError, match="write host:port"):
            parse_address(text, "")
