"""One process serves a site's links to two other sites, and what happens to one does not reach the other."""

import asyncio
import errno
import json
import os
import random
import signal
import sqlite3
import subprocess
from contextlib import asynccontextmanager

import pytest
from fault_rehearsal import Store, check_stores, until
from three_sites import FIBRES, FIRST, FURTHER, ThreeSites
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import HeliographError, KeyNotFound, KeySupplyError
from heliograph.site.config import read_site

ENDS = {FIRST: ("site_b", "sae-b"), FURTHER: ("site_c", "sae-c")}


@asynccontextmanager
async def three_sites(before=lambda _: None):
    """Give the sites, running, with a block on each link; ``before``: is done to their files before they start."""
    sites = ThreeSites()
    try:
        sites.prepare()
        before(sites)
        for fibre in FIBRES:
            await sites.start(fibre)
        await asyncio.gather(*map(sites.start, sites.sites))
        for link in ENDS:
            await more_blocks(sites, link, 0)
        yield sites
    finally:
        await sites.stop_all()
        sites.remove()


async def more_blocks(sites, link, than):
    async def more():
        return (await sites.link(link)).blocks > than

    await until(more)


async def running(sites, link):
    async def is_running():
        return (await sites.link(link)).state == "running"

    await until(is_running)


async def deliver(sites, link):
    """Take a key at A and its copy at the link's other site; return it."""
    name, sae = ENDS[link]
    async with sites.client("site_a", sae) as here, sites.client(name, "sae-a") as there:
        key = await here.get_key()

        async def arrived():
            nonlocal copy
            copy = await there.get_key_with_id(key.key_id)
            return True

        copy = None
        await until(arrived, 20.0)
        assert copy.material == key.material
        with pytest.raises(KeyNotFound):
            await there.get_key_with_id(key.key_id)
        # The other way round: a key that the other site owns.
        back = await there.get_key()
        assert (await here.get_key_with_id(back.key_id)).material == back.material
    return key, back


def names_in(path):
    """Return which SAEs a store has had keys for, read with nothing but SQLite."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        found = {name for row in store.execute("SELECT DISTINCT master, slave FROM key_records") for name in row}
    store.close()
    return found


@pytest.mark.slow
def test_each_pair_is_served_by_its_own_link_and_a_dead_peer_stops_only_its_own():
    async def scene():
        async with three_sites() as sites:
            # (1) Both at once, each pair at its own far end.
            keys = [key.material for pair in [await deliver(sites, link) for link in ENDS] for key in pair]
            assert len(set(keys)) == 4
            status = await sites.status("site_a")
            assert status.kme.delivered_to_masters == status.kme.delivered_to_slaves == 2
            assert [link.link for link in status.links] == [FIRST, FURTHER]

            # (2) The site at the end of the further link dies.
            await sites.stop("site_c", signal.SIGKILL)
            await more_blocks(sites, FIRST, (await sites.link(FIRST)).blocks)
            await deliver(sites, FIRST)
            with pytest.raises(HeliographError) as unreachable:
                async with sites.client("site_a", "sae-c") as here:
                    await here.get_key_with_id("7f3d6a10-1111-4222-8333-444455556666")
            assert not isinstance(unreachable.value, KeyNotFound)  # 503: C might know it
            with pytest.raises(KeyNotFound):  # B is there, so nobody can know it
                async with sites.client("site_a", "sae-b") as here:
                    await here.get_key_with_id("7f3d6a10-1111-4222-8333-444455556666")
            assert (await sites.link(FIRST)).state == "running"
            assert (await sites.link(FURTHER)).state != "running"
            shown = await asyncio.to_thread(CliRunner().invoke, app, ["site", "status", str(sites.sites["site_a"])])
            assert f"link {FIRST} to site-b: running" in shown.stdout
            assert f"link {FURTHER} to site-c: not connected" in shown.stdout

            # A reload reaches the further link, too.
            toml = sites.sites["site_a"]
            fresh = toml.with_name("fresh")
            fresh.write_text(toml.read_text() + "keys_max = 19_000\n")  # the file ends with its section
            fresh.replace(toml)
            words = ["site", "reload", str(toml), "--approver", "Ann"]
            done = await asyncio.to_thread(CliRunner().invoke, app, words)
            assert "[further_links] keys_max" in done.stdout, done.output
            async with sites.client("site_a", "sae-c") as here:
                assert (await here.status()).max_key_count == 19_000

            # (3) It comes back, and then A itself is restarted.
            await sites.start("site_c")
            await running(sites, FURTHER)
            await sites.stop("fibre_c", signal.SIGKILL)  # what stands for the further link's device
            began = asyncio.get_running_loop().time()
            process = sites.processes["site_a"]
            await sites.stop("site_a")
            assert process.returncode == 0
            assert asyncio.get_running_loop().time() - began < 5.0
            await sites.start("site_a")
            await running(sites, FIRST)
            await more_blocks(sites, FIRST, (await sites.link(FIRST)).blocks)
            made = (await sites.link(FURTHER)).blocks
            await sites.start("fibre_c")
            await more_blocks(sites, FURTHER, made)
            for link in ENDS:
                await running(sites, link)
                assert (await sites.link(link)).epoch == 1
                await deliver(sites, link)
            log = [
                json.loads(line) for line in (sites.directory / "site_a.log").read_text().splitlines() if "{" in line
            ]
            assert {line["link"] for line in log if line["event"] == "link running"} == {FIRST, FURTHER}
            await sites.stop_all()
            # (4) Nothing of one link's keys was ever in the other's store.
            first, further = read_site(sites.sites["site_a"]).links
            assert names_in(first.path(first.file.store)) == {"sae-a", "sae-b"}
            assert names_in(further.path(further.file.store)) == {"sae-a", "sae-c"}

    asyncio.run(scene())


def fill(path):
    """Write until there is no room; the file stays."""
    try:
        with path.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
    except OSError as full:
        assert full.errno == errno.ENOSPC  # noqa: PT017  - anything else is not what this test is about


def unmount(disk):
    subprocess.run(["umount", "--lazy", disk], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk of its own for one store")
def test_a_full_disk_of_one_links_store_leaves_the_other_link_alone():
    async def scene():
        disk = None

        def mount(sites):
            nonlocal disk
            view = read_site(sites.sites["site_a"]).further[0]
            disk = view.path(view.file.store).parent
            disk.mkdir(mode=0o700, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", disk], check=True)

        try:
            async with three_sites(mount) as sites:
                await deliver(sites, FURTHER)
                filling = disk / "filling"
                fill(filling)

                async def says_so():
                    return (await sites.link(FURTHER)).state.startswith("store unavailable")

                await until(says_so)
                await more_blocks(sites, FIRST, (await sites.link(FIRST)).blocks)
                await deliver(sites, FIRST)
                async with sites.client("site_a", "sae-c") as here:
                    with pytest.raises(KeySupplyError, match="Error on server side"):  # 503: come back later
                        await here.get_key()
                filling.unlink()
                await running(sites, FURTHER)
                await deliver(sites, FURTHER)
                await sites.stop_all()
                unmount(disk)
        finally:
            if disk is not None:
                unmount(disk)  # whatever failed

    asyncio.run(scene())


@pytest.mark.soak
def test_a_site_of_two_links_killed_at_random_moments_agrees_with_both_peers():
    async def scene():
        chance = random.Random(54)
        async with three_sites() as sites:
            for _ in range(10):
                await asyncio.sleep(chance.uniform(0.0, 0.6))
                await sites.stop("site_a", signal.SIGKILL)
                await sites.start("site_a")
                for link in ENDS:
                    await more_blocks(sites, link, (await sites.link(link)).blocks)
                    await deliver(sites, link)
            log = (sites.directory / "site_a.log").read_text()
            await sites.stop_all()
            # The first argument is the end that sends the light.
            check_stores(Store.of(sites, "site_a", FIRST), Store.of(sites, "site_b"))
            check_stores(Store.of(sites, "site_c"), Store.of(sites, "site_a", FURTHER))
        assert "internal error" not in log
        assert "Traceback" not in log

    asyncio.run(scene())
