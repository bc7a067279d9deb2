"""Several front ends of one key manager, as processes over mutual TLS, hammered and killed: each key at most once."""

import asyncio
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from front_end_processes import FrontEndProcess, add_delivery, fill, heliograph, short_directory

from heliograph.errors import HeliographError, InsufficientKeys, KeyNotFound
from heliograph.lab.front_end_kills import run_front_end_kills

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "site"))
from site_on_disk import make_site

pytestmark = pytest.mark.slow
NAMES = ("fe-1", "fe-2", "fe-3")
KILLS = 3


@pytest.fixture
def site():
    directory = short_directory()
    yield make_site(directory / "a", light=directory / "light.sock") / "SITE.toml"
    shutil.rmtree(directory)


class Hammer:
    """SAEs that fetch keys as masters and as slaves, at every front end at once, whatever happens to it."""

    def __init__(self, named):
        self.named = list(named)
        self.seen = []
        self.asked_in_vain = 0

    async def masters(self, front, stop):
        async with front.client() as client:
            while not stop.is_set():
                try:
                    self.seen.append(await client.get_key())
                except InsufficientKeys:
                    await asyncio.sleep(0.02)
                except HeliographError:
                    self.asked_in_vain += 1
                    await asyncio.sleep(0.02)

    async def slaves(self, front, stop):
        """Fetch every named key here too: whoever comes second must be told that it is gone."""
        async with front.client() as client:
            for key_id in self.named:
                while not stop.is_set():
                    try:
                        self.seen.append(await client.get_key_with_id(key_id))
                    except KeyNotFound:
                        pass
                    except HeliographError:
                        self.asked_in_vain += 1
                        await asyncio.sleep(0.02)
                        continue
                    break


async def until(condition, seconds=120.0):
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


def left(server):
    with server.session() as session:
        return session.execute("SELECT count(*) FROM heliograph.key_records").fetchone()[0]


def delivered(server):
    with server.session() as session:
        return session.execute("SELECT count(*) FROM heliograph.key_tombstones WHERE fate = 'delivered'").fetchone()[0]


def test_front_ends_that_are_hammered_and_killed_deliver_each_key_at_most_once(site, server):
    addresses = add_delivery(site, server, NAMES)
    keys = fill(site, 1, owned=400, held=100)
    held = list(keys)[400:]
    moved = heliograph("store", "move", site)
    assert (moved.returncode, moved.stdout.splitlines()[-1]) == (0, "500 keys moved."), moved.stderr

    async def act():
        fronts = [FrontEndProcess(site, name, addresses[name]) for name in NAMES]
        await asyncio.gather(*(front.start() for front in fronts))
        hammer, stop = Hammer(held), asyncio.Event()
        work = [
            asyncio.create_task(act(front, stop))
            for front in fronts
            for act in (hammer.masters, hammer.masters, hammer.slaves)
        ]
        for step in range(KILLS):
            front = fronts[step % len(fronts)]
            await until(lambda goal=80 * (step + 1): len(hammer.seen) >= goal or not left(server))
            await front.end(signal.SIGKILL)
            await front.start()
        await until(lambda: not left(server))
        await asyncio.gather(*work[2::3])
        stop.set()
        await asyncio.gather(*work)
        codes = [await front.end(signal.SIGTERM) for front in fronts]
        assert codes == [0, 0, 0], [front.log.read_text()[-500:] for front in fronts]
        return hammer

    hammer = asyncio.run(act())
    ids = [key.key_id for key in hammer.seen]
    assert len(ids) == len(set(ids)), "a key came twice"
    assert all(keys[key.key_id] == key.material for key in hammer.seen)
    # None is lost but those whose answer was under way to a client when its front end was killed.
    burnt = len(keys) - len(ids)
    assert delivered(server) == len(keys)
    assert 0 <= burnt <= KILLS * 3, burnt


def test_the_move_can_be_repeated_and_is_refused_while_the_site_has_its_store_open(site, server):
    addresses = add_delivery(site, server, NAMES[:1])
    keys = fill(site, 1, owned=3, held=0)
    from front_end_processes import Database, open_kek, read_site  # noqa: PLC0415

    config = read_site(site)
    database = Database(config.path(config.file.store), open_kek(config))  # as a running site has it
    refused = heliograph("store", "move", site)
    database.close()
    assert refused.returncode == 1
    assert refused.stderr.strip().endswith("another process has it open; stop that one first")
    for moved in (3, 0):
        done = heliograph("store", "move", site)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{moved} keys moved."), done.stderr

    async def act():
        front = FrontEndProcess(site, NAMES[0], addresses[NAMES[0]])
        await front.start()
        twin = heliograph("kme", "serve", site, "--front-end", NAMES[0])
        assert twin.returncode == 1
        assert "another process has it open" in twin.stderr
        async with front.client() as client:
            got = {(await client.get_key()).key_id for _ in range(3)}
            with pytest.raises(InsufficientKeys):
                await client.get_key()
            front.process.send_signal(signal.SIGHUP)
            await until(
                lambda: "nothing to reload: no setting, certificate or key file differs" in front.log.read_text()
            )
            with pytest.raises(InsufficientKeys):
                await client.get_key()
            # What changes under way, and what is refused whole, over the same connection.
            sound = site.read_text()
            changed = sound.replace("[kme]", "[kme]\nmax_key_per_request = 7")
            site.write_text(changed.replace(f'"name" = "{NAMES[0]}"', '"name" = "another"'))
            front.process.send_signal(signal.SIGHUP)
            await until(lambda: "[delivery] front_ends: changed by a restart only" in front.log.read_text())
            assert (await client.status()).max_key_per_request == 128
            site.write_text(changed)
            front.process.send_signal(signal.SIGHUP)
            await until(lambda: "changed: [kme] max_key_per_request" in front.log.read_text())
            assert (await client.status()).max_key_per_request == 7
            site.write_text(changed + '\n[boundary]\nnetworks = ["192.0.2.0/24"]\n')
            front.process.send_signal(signal.SIGHUP)
            await until(lambda: "changed: [boundary] networks" in front.log.read_text())
            with pytest.raises(HeliographError):
                await client.status()
        assert await front.end(signal.SIGTERM) == 0
        return got

    assert asyncio.run(act()) == set(keys)


@pytest.mark.soak
def test_a_server_that_is_restored_under_running_front_ends_ends_them_and_reopens_by_an_operators_word(
    site, server, new_server
):
    addresses = add_delivery(site, server, NAMES[:2])
    fill(site, 1, owned=5, held=0)
    assert heliograph("store", "move", site).returncode == 0
    backup = new_server(create=False)

    async def act():
        fronts = [FrontEndProcess(site, name, addresses[name]) for name in NAMES[:2]]
        await asyncio.gather(*(front.start() for front in fronts))
        server.base_backup(backup)
        async with fronts[0].client() as client:
            first = await client.get_key()
        server.stop()
        shutil.rmtree(server.data)
        backup.copy_to(server)
        server.start()
        async with asyncio.timeout(30):
            codes = [await front.process.wait() for front in fronts]
        assert codes == [1, 1]
        assert "fe-1 remembers" in fronts[0].log.read_text()
        words = ("store", "reopen", site, "--front-end", "fe-1", "--approver", "Ann")
        unsure = heliograph(*words)
        assert unsure.returncode == 1
        assert "add --yes" in unsure.stderr
        done = heliograph(*words, "--yes")
        assert (done.returncode, done.stdout) == (0, "5 keys destroyed; start the front end fe-1 again.\n"), done.stderr
        await asyncio.gather(*(front.start() for front in fronts))
        async with fronts[1].client() as client:
            with pytest.raises(InsufficientKeys):
                await client.get_key()
        for front in fronts:
            with suppress(ProcessLookupError):
                await front.end(signal.SIGTERM)
        return first

    assert asyncio.run(act()).key_id


def test_the_kills_end_with_a_report_when_no_key_was_burnt():
    async def act():
        async with asyncio.timeout(120):
            return await run_front_end_kills(0, 1)

    report = asyncio.run(act())
    assert report.sound
    assert (report.delivered, report.burnt) == (report.keys, 0)
