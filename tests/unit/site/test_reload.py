"""A running site takes over what it can of a changed SITE.toml, all of it or nothing, and goes on meanwhile."""

import asyncio
import dataclasses
import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
import traceback
import uuid
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from site_on_disk import SiteOnDisk, listening, make_site
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import ConfigurationError, KeySupplyError, TransportClosed
from heliograph.http.client import Etsi014Client
from heliograph.http.server import KmeServer
from heliograph.http.tls import client_tls
from heliograph.kme.boundary import Boundary
from heliograph.lab.ports import free_ports
from heliograph.site.audit import AuditLog
from heliograph.site.config import read_site
from heliograph.site.control_socket import give_order
from heliograph.site.kme_doors import kme_tls
from heliograph.site.live_settings import _LIVE, site_changes, site_reloads
from heliograph.site.reload import Prepared
from heliograph.site.renewing import renews
from heliograph.site.site import run_site
from heliograph.site.status_socket import read_status
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.transport.etsi004_server import Etsi004Server
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness


@pytest.fixture(scope="module")
def made():
    directory = Path(tempfile.mkdtemp(prefix="hgr"))
    made = SiteOnDisk(make_site(directory / "site", light=directory / "light.sock"))
    light = listening(directory / "light.sock")
    yield made
    light.close()
    shutil.rmtree(directory)


@pytest.fixture
def site(made):
    directory = Path(tempfile.mkdtemp(prefix="hgs"))
    copy = made.copy(directory / "s")
    kme, skip, streams, here, there, interworking = free_ports(6)
    document = copy.document()
    document.pop("agent")
    document["kme"] |= {"listen": f"127.0.0.1:{kme}", "quotas": [quota(4)]}
    document["skip"] = {
        "listen": f"127.0.0.1:{skip}", "local_system_id": "kp-a", "remote_systems": {"kp-b": ["sae-b"]},
    }  # fmt: skip
    document["etsi004"] = {
        "listen": f"127.0.0.1:{streams}", "promised_bps": 100,
        "peer_listen": f"127.0.0.1:{here}", "peer_dial": f"127.0.0.1:{there}",
    }  # fmt: skip
    document["etsi020"] = {"listen": f"127.0.0.1:{interworking}", "url": f"https://127.0.0.1:{interworking}",
                           "peers": [peer("kme-x", "sae-x")]}  # fmt: skip
    copy.write(document)
    yield copy
    shutil.rmtree(directory)


NOTHING = "nothing to reload: no setting, certificate or key file differs from what is in force"


def quota(burst):
    return {"master": "sae-a", "slaves": ["sae-b"], "keys_per_hour": 1.0, "burst": burst}


def peer(kme, sae):
    return {
        "kme": kme,
        "url": f"https://127.0.0.1:{len(kme)}",
        "pairs": [{"local": "sae-a", "foreign": sae, "stock": 0}],
    }


def fill(config, number):
    database = Database(config.path(config.file.store), FileKek(config.path(config.file.kek), SystemRandomness()))
    keys = KeyRecords(database, SystemRandomness())
    rows = [
        NewKey(str(uuid.uuid4()), "sae-a", "sae-b", owner_here=True, material=os.urandom(32), created_at=100.0)
        for _ in range(number)
    ]
    with database.transaction() as cursor:
        keys.add(cursor, 1, 1, rows, "{}")
        keys.acknowledge(cursor, 1, 1)
    database.close()


class Running:
    """The site's own code in this process; ``order`` reloads as `heliograph site reload` does."""

    def __init__(self, site):
        self.site, self.config = site, read_site(site.toml)
        self.levels = []

    async def order(self):
        # The command looks at who owns SITE.toml, which a test takes away.
        config = dataclasses.replace(self.config, toml=self.config.path(self.config.file.kek))
        return await give_order(config, "reload", b"Ann")

    async def status(self):
        return (await read_status(self.config.path(self.config.file.status))).configuration

    def sae(self):
        return Etsi014Client(f"https://{self.config.file.kme.listen}", self.tls(), "sae-a", "sae-b")

    def tls(self):
        pki = self.config.directory / "pki"
        return client_tls(pki / "sae.pem", pki / "sae.key", pki / "ca.pem", "kme-a")

    async def refused(self, *words):
        before = await self.status()
        with pytest.raises(ConfigurationError) as refusal:
            await self.order()
        line = str(refusal.value)
        assert "\n" not in line
        for word in ("nothing was reloaded, the running configuration stays in force: ", *words):
            assert word in line
        after = await self.status()
        assert (after.last, after.reloads, after.refused) == (line, before.reloads, before.refused + 1)
        return line


@asynccontextmanager
async def running(site, keys=0):
    there = Running(site)
    if keys:
        fill(there.config, keys)
    kek = FileKek(there.config.path(there.config.file.kek), SystemRandomness())
    ready, stop = asyncio.Event(), asyncio.Event()

    async def say():
        ready.set()

    task = asyncio.create_task(run_site(there.config, kek, say, stop, asyncio.Event(), there.levels.append))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if task.done():
            task.result()
        yield there
    finally:
        stop.set()
        await asyncio.gather(task, waiting)


def test_limits_change_under_way_and_what_was_taken_stays_taken(site):
    async def act():
        async with running(site, keys=40) as there, there.sae() as sae:
            for _ in range(4):
                await sae.get_key()
            with pytest.raises(KeySupplyError, match="quota"):
                await sae.get_key()
            site.set(kme__quotas=[quota(9)], kme__max_key_per_request=7, link__keys_max=33, log_level="debug")
            said = await there.order()
            assert said == ("changed: [link] keys_max, [kme] max_key_per_request, [kme] quotas, log_level")
            assert there.levels == ["debug"]
            # The same connection: the new limits hold at once, and a reload fills no bucket.
            status = await sae.status()
            assert (status.max_key_per_request, status.max_key_count) == (7, 33)
            with pytest.raises(KeySupplyError, match="the quota of this pair of SAEs is 9 keys at once"):
                await sae.get_key()
            site.set(kme__quotas=None, kme__reserve=36)
            await there.order()
            with pytest.raises(KeySupplyError):
                await sae.get_key()
            site.set(kme__reserve=0)
            await there.order()
            await sae.get_key()
            found = await there.status()
            assert (found.reloads, found.refused) == (3, 0)
            assert found.last == "changed: [kme] reserve"
            last = AuditLog(there.config.audit).verify(needs_head=True).entries[-1]
            assert (last.event, last.approver) == ("configuration reloaded", "Ann")
            assert last.details == {"process": "site", "changed": ["[kme] reserve"]}

    asyncio.run(act())


async def gone(client):
    """Whether a connection that was there is cut: its end comes by itself, before anything is asked."""
    async with asyncio.timeout(10):
        try:
            return await client.read() == b""
        except ConnectionError:
            return True


async def dial(there, address):
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port), ssl=there.tls(), server_hostname=host)


async def get(reader, writer, path, more=""):
    writer.write(f"GET {path} HTTP/1.1\r\nHost: kme\r\n{more}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


STATUS = "/api/v1/keys/sae-b/status"


SHUT = [{"certificates": ["sae-other"]}, {"certificates": []}, {"networks": ["192.0.2.0/24"]}]


@pytest.mark.parametrize("shut", SHUT)
def test_a_consumer_that_is_taken_away_is_cut_off_at_every_door_at_once_and_may_come_back(site, shut):
    document = site.document()
    document["kme"]["groups"] = [{"master": "sae-other", "slaves": ["sae-another"]}]
    site.write(document)

    async def act():
        async with running(site, keys=8) as there:
            file = there.config.file
            plain = await dial(there, file.kme.listen)
            general = await dial(there, file.kme.listen)
            skip = await dial(there, file.skip.listen)
            streams = await dial(there, file.etsi004.listen)
            assert (await get(*plain, STATUS))[0] == 200
            # A header that the short way does not know: aiohttp has this connection.
            assert (await get(*general, STATUS, "X-Other: 1\r\n"))[0] == 200
            assert (await get(*skip, "/capabilities"))[0] == 200
            site.write({**document, "boundary": shut})
            await there.order()
            assert [await gone(one[0]) for one in (plain, general, skip, streams)] == [True] * 4
            try:
                again = await dial(there, file.kme.listen)
                assert (await get(*again, STATUS))[0] == 401
            except (ConnectionError, asyncio.IncompleteReadError):
                assert "networks" in shut
            site.write({**document, "boundary": {"certificates": ["sae-a"], "networks": ["127.0.0.0/8"]}})
            if shut.get("certificates") == []:  # as after a start with nobody, when there is no port
                await there.refused("[boundary] certificates", "changed by a restart only")
                return
            await there.order()
            back = await dial(there, file.kme.listen)
            assert (await get(*back, STATUS))[0] == 200
            for one in (plain, general, skip, streams, back):
                one[1].transport.abort()

    asyncio.run(act())


def test_systems_peers_and_groups_come_and_go_under_way(site):
    async def act():
        async with running(site) as there:
            file = there.config.file
            skip = await dial(there, file.skip.listen)
            assert (await get(*skip, "/capabilities"))[1]["remoteSystemID"] == ["kp-b"]
            pki = there.config.directory / "pki"
            ca = SiteCa.load(pki)
            contexts = {}
            for name in ("kme-x", "kme-new"):
                files = ca.issue_kme(name, ["127.0.0.1"], interworking=True).write(pki, name)
                contexts[name] = client_tls(*files, "kme-a")

            async def versions(name):
                host, _, port = file.etsi020.listen.rpartition(":")
                ends = await asyncio.open_connection(host, int(port), ssl=contexts[name], server_hostname=host)
                return ends, (await get(*ends, "/kmapi/versions"))[0]

            async def told(name):
                ends, status = await versions(name)
                ends[1].transport.abort()
                return status

            old, status = await versions("kme-x")
            assert status == 200
            assert await told("kme-new") == 401
            document = site.document()
            document["skip"]["remote_systems"] = {"kp-c": ["sae-b"], "kp-d": ["sae-b"]}
            document["etsi020"]["peers"] = [peer("kme-new", "sae-new")]
            document["kme"]["groups"] = [{"master": "sae-a", "slaves": ["sae-a2"]}]
            document["etsi004"] |= {"promised_bps": 200, "peer_dial": f"127.0.0.1:{free_ports(1)[0]}"}
            site.write(document)
            await there.order()
            assert (await get(*skip, "/capabilities"))[1]["remoteSystemID"] == ["kp-c", "kp-d"]
            assert await gone(old[0])
            assert [await told(name) for name in ("kme-x", "kme-new")] == [401, 200]
            plain = await dial(there, file.kme.listen)
            assert (await get(*plain, "/api/v1/keys/sae-a2/enc_keys"))[0] == 200
            assert (await get(*plain, "/api/v1/keys/sae-x/status"))[0] == 400
            assert (await get(*plain, "/api/v1/keys/sae-new/status"))[0] == 200
            for one in (skip, old, plain):
                one[1].transport.abort()

    asyncio.run(act())


FIXED = {
    "[kme] id": {"kme__id": "kme-other"},
    "[kme] listen": {"kme__listen": "127.0.0.1:1"},
    "store": {"store": "elsewhere/site.db"},
    "kek": {"kek": "kek2"},
    "anchor": {"anchor": "anchor2"},
    "status": {"status": "other.sock"},
    "[link] trust": {"link__trust": "trust2"},
    "[link] book": {"link__book": "book2"},
    "[link] block_seconds": {"link__block_seconds": 5.0},
    "[module] settings": {"module__settings": {"address": "unix:/nowhere"}},
    "[seal]": {"seal": {"kind": "passphrase"}},
    "[boundary] socket": {"boundary": {"socket": "k.sock", "users": {"0": "sae-a"}}},
    "[skip]": {"skip": None},
    "[skip] listen": {"skip__listen": "127.0.0.1:1"},
    "[etsi004] peer_listen": {"etsi004__peer_listen": "127.0.0.1:1"},
    "[etsi020] url": {"etsi020__url": "https://127.0.0.1:1"},
}


def test_what_waits_for_a_restart_is_named_and_nothing_beside_it_is_taken_over(site):
    sound = site.toml.read_text()

    async def act():
        async with running(site) as there, there.sae() as sae:
            assert (await sae.status()).max_key_per_request == 128
            for name, entries in FIXED.items():
                table = next(iter(entries)).partition("__")[0]
                site.set(kme__max_key_per_request=7, **({} if table == "seal" else entries))
                if table == "seal":
                    section = {"kind": "pkcs11", "module": "/m.so", "token": "t"}
                    site.write({**site.document(), "seal": section})
                line = await there.refused(name.replace("[seal]", "[seal] kind"), "changed by a restart only")
                assert "max_key_per_request" not in line
                assert (await sae.status()).max_key_per_request == 128, name
                site.toml.write_text(sound)
            # What both sites agreed on, of which key sizes, policies and pairs of SAEs are a part.
            link = there.config.toml.parent / there.config.file.link.registration
            before = link.read_text()
            for entry, value in (("key_size_bits", 512), ("eps_total_max", 1e-3), ("mac", "hmac-sha-256")):
                link.write_text(json.dumps(json.loads(before) | {entry: value}))
                await there.refused("the registration link.json, which both sites agreed on")
            link.write_text(before)
            assert (await there.order()) == NOTHING
            assert (await there.status()).reloads == 1
        assert not [
            entry for entry in AuditLog(there.config.audit).verify(needs_head=True).entries if "reload" in entry.event
        ]

    asyncio.run(act())


def test_a_changed_status_path_is_named_though_the_command_asks_at_the_new_one(site):
    async def act():
        async with running(site) as there:
            site.set(status="elsewhere.sock")
            words = ["site", "reload", str(site.toml), "--approver", "Ann"]
            done = await asyncio.to_thread(CliRunner().invoke, app, words)
            assert done.exit_code == 1
            assert "nothing was reloaded: no site answers at" in done.stderr
            assert "If `status` is what changed: put it back" in done.stderr
            await there.refused("status", "put it back, or restart")  # as SIGHUP says it
            site.set(status="status.sock")
            done = await asyncio.to_thread(CliRunner().invoke, app, words)
            assert (done.exit_code, done.stdout.strip()) == (0, NOTHING)

    asyncio.run(act())


def test_a_boundary_that_disappears_from_the_file_opens_nothing(site):
    site.write({**site.document(), "boundary": {"certificates": ["sae-a"], "networks": ["127.0.0.0/8"]}})
    sound = site.toml.read_text()

    async def act():
        async with running(site) as there:
            site.toml.write_text(sound[: sound.index("[boundary]")])  # as a full disk leaves a file
            await there.refused("[boundary]", "changed by a restart only")

    asyncio.run(act())


def test_a_file_that_cannot_be_used_changes_nothing_and_is_one_line_on_the_status(site):
    sound = site.toml.read_text()

    async def act():
        async with running(site) as there, there.sae() as sae:
            for text, word in (
                (sound + "\nnonsense", "not valid TOML"),
                ("", "no entry is in it"),
                (sound.replace("[kme]", "[kme]\nreserv = 3"), "reserv"),
                (sound.replace("[kme]", "[kme]\nreserve = -1"), "between 0 and 1024"),
                (sound.replace("[skip]", '[boundary]\ncertificates = ["sae-nobody"]\n[skip]'), "sae-nobody"),
                (sound.replace('"kp-a"', '" "'), "system ID"),
            ):
                site.toml.write_text(text)
                await there.refused(word)
                assert (await sae.status()).max_key_per_request == 128
            site.toml.unlink()
            await there.refused("No such file")
            site.toml.mkdir()
            await there.refused("a directory")
            site.toml.rmdir()
            site.toml.write_text(sound)
            # The audit log comes before the act: what it cannot keep is not done.
            site.set(kme__reserve=1)
            whole = there.config.audit.read_bytes()
            there.config.audit.write_bytes(whole.replace(b"Ann", b"Eve"))
            await there.refused("audit")
            there.config.audit.write_bytes(whole)
            await there.order()
            assert (await there.status()).reloads == 1

    asyncio.run(act())


def test_a_file_that_is_written_while_it_is_read_is_not_believed(site):
    applied, still_to_write = [], [9]

    def write(_config):
        if still_to_write:
            site.set(kme__max_key_per_request=still_to_write.pop())

    async def act():
        reloads = site_reloads(read_site(site.toml))
        # Whoever writes the file is as far as this when the certificates are read.
        reloads.add(write, applied.append)
        site.set(kme__max_key_per_request=7)
        with pytest.raises(ConfigurationError, match="it was being written while it was read"):
            await reloads.reload("Ann")
        assert (applied, reloads.config.file.kme.max_key_per_request) == ([], 128)
        await reloads.reload("Ann")  # now it is whole
        assert (applied, reloads.config.file.kme.max_key_per_request) == ([None], 9)

    asyncio.run(act())


def test_what_was_prepared_is_let_go_when_a_later_part_refuses(site):
    let_go = []

    async def act():
        reloads = site_reloads(read_site(site.toml))

        async def prepared(_config):
            return Prepared(_never, lambda: let_go.append("first"))

        def refuse(_config):
            raise ValueError("its text might quote a key")

        reloads.prepare(prepared)
        reloads.add(refuse, let_go.append)
        with pytest.raises(ConfigurationError, match=r"nothing was reloaded.*internal error \(ValueError at") as why:
            await reloads.reload("Ann")
        assert "quote" not in str(why.value)
        assert let_go == ["first"]

    asyncio.run(act())


async def _never():
    raise AssertionError("a refused change was applied")


def test_requests_and_connections_go_on_through_many_reloads_and_no_key_is_lost(site):
    site.set(kme__quotas=None)

    async def act():
        got, stop, came = [], asyncio.Event(), asyncio.Event()

        async def consume(there):
            async with there.sae() as sae:
                while not stop.is_set():
                    got.append((await sae.get_key()).key_id)
                    came.set()

        async with running(site, keys=4000) as there, there.sae() as first:
            await first.get_key()
            tasks = [asyncio.create_task(consume(there)) for _ in range(3)]
            for turn in range(25):
                site.set(kme__max_key_per_request=100 + turn, boundary={"certificates": ["sae-a"]})
                await there.order()
                came.clear()
                await asyncio.wait_for(came.wait(), 20)
            stop.set()
            await asyncio.gather(*tasks)
            status = await first.status()
        assert status.max_key_per_request == 124
        assert len(set(got)) == len(got)
        assert status.stored_key_count == 4000 - 1 - len(got) - 8  # the reserve for key streams

    asyncio.run(act())


def test_every_setting_of_the_file_is_decided_and_a_new_one_waits_for_a_restart(site):
    """The table names settings that exist; what it does not name is refused while running."""
    config = read_site(site.toml)
    file = type(config.file)
    tables = {name: kind for name, kind in file.__annotations__.items() if name in _LIVE}
    assert set(_LIVE) - {"", "agent tunnel"} == set(tables)
    assert site_changes(config, config) == []


def test_nobody_answers_a_reload_of_a_site_that_does_not_run(site):
    with pytest.raises(TransportClosed, match="is it running"):
        asyncio.run(give_order(read_site(site.toml), "reload", b"Ann"))


def writes_audit():
    """Whether a thread is inside the audit log."""
    frames = sys._current_frames().values()
    return any(
        of.f_code.co_filename.endswith("site/audit.py") for frame in frames for of, _ in traceback.walk_stack(frame)
    )


def takes_connections(address):
    host, _, port = address.rpartition(":")
    with socket.socket() as caller:
        return caller.connect_ex((host, int(port))) == 0


def test_a_reload_under_way_when_the_site_ends_opens_no_door_again(site):
    document = site.document()
    doors = [document[section]["listen"] for section in ("kme", "skip", "etsi004", "etsi020")]

    async def act():
        async with running(site) as there:
            assert all(map(takes_connections, doors))
            held = os.open(there.config.audit, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX)
            site.set(kme__reserve=3)
            order = asyncio.create_task(there.order())
            while not writes_audit():  # in a thread, where it waits for the lock of the file
                assert not order.done()
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.5, os.close, held)
        # The reload was whole before anything was closed.
        assert await asyncio.wait_for(order, 10) == "changed: [kme] reserve"
        assert not any(map(takes_connections, doors))

    asyncio.run(act())


def test_a_reload_asked_for_when_the_site_is_ending_is_refused_in_one_line(site):
    async def act():
        reloads = site_reloads(read_site(site.toml))
        await reloads.close()
        with pytest.raises(ConfigurationError, match=r"^nothing was reloaded: the site is ending$"):
            await reloads.reload("Ann")
        assert (reloads.status().reloads, reloads.status().refused) == (0, 1)

    asyncio.run(act())


@pytest.mark.parametrize("section", ["kme", "etsi004"])
def test_a_certificate_for_a_door_that_was_closed_opens_it_not(site, section):
    async def act():
        config = read_site(site.toml)
        door = Etsi004Server(None, Boundary()) if section == "etsi004" else KmeServer(config)
        await door.start("127.0.0.1", 0, kme_tls(config))
        port = door.port
        prepared = await renews(door, kme_tls)(config)
        await door.close()
        await prepared.apply()
        assert not takes_connections(f"127.0.0.1:{port}")

    asyncio.run(act())
