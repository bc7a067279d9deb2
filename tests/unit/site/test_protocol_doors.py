"""SITE.toml opens every delivery protocol over one supply, opens nothing that is not declared, and refuses nonsense."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import tomllib
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from boundary_capture import listeners
from cryptography import x509
from OpenSSL import SSL
from site_on_disk import SiteOnDisk, make_site

from heliograph.errors import ConfigurationError, HeliographError, InsufficientKeys
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls, server_tls
from heliograph.kme.etsi004 import Qos, Status
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.ports import free_ports
from heliograph.openssl import AES_256_GCM_SHA384, psk_client
from heliograph.site.clocks import WallClock
from heliograph.site.config import read_site
from heliograph.site.kme_doors import foreign_pairs, open_doors
from heliograph.site.live_settings import site_reloads
from heliograph.site.site_supply import make_supply
from heliograph.site.store import open_store
from heliograph.storage.database import Database
from heliograph.storage.keys import NewKey
from heliograph.testing.psk_client import Refused as PskRefused
from heliograph.testing.psk_client import ask as psk_ask
from heliograph.testing.psk_client import shake_hands
from heliograph.transport.etsi004_client import Etsi004Client
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

PEER = {"kme": "kme-x", "url": "https://127.0.0.1:9", "pairs": [{"local": "sae-a", "foreign": "sae-x", "stock": 2}]}


ROOT = Path(__file__).parents[3]
BEHIND_Y = {"kme": "kme-y", "url": "https://127.0.0.1:8", "saes": ["sae-y"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("doors") / "site"
    return SiteOnDisk(make_site(directory, light=directory.parent / "light.sock"))


@pytest.fixture
def site(made, tmp_path):
    return made.copy(tmp_path / "site")


def entries():
    skip, streams, peer_here, peer_there, interworking = free_ports(5)
    return {
        "skip": {
            "listen": f"127.0.0.1:{skip}",
            "local_system_id": "kp-a",
            "remote_systems": {"kp-b": ["sae-b"]},
        },
        "etsi004": {
            "listen": f"127.0.0.1:{streams}",
            "promised_bps": 100,
            "peer_listen": f"127.0.0.1:{peer_here}",
            "peer_dial": f"127.0.0.1:{peer_there}",
            "applications": {"qkd://a": "sae-a"},
        },
        "etsi020": {
            "listen": f"127.0.0.1:{interworking}",
            "url": f"https://127.0.0.1:{interworking}",
            "peers": [PEER],
        },
    }


def served(site, declared, act, *, reloading=False):
    document = site.document()
    site.write({**document, **declared})
    config = read_site(site.toml)

    async def main():
        database = Database(config.path(config.file.store), FileKek(config.path(config.file.kek), SystemRandomness()))
        try:
            store = open_store(database, config.path(config.file.anchor), SystemRandomness())
            rows = [
                NewKey(str(uuid.uuid4()), "sae-a", "sae-b", owner_here=True, material=os.urandom(32), created_at=0.0)
                for _ in range(4)
            ]
            with database.transaction() as cursor:
                store.keys.add(cursor, 1, 1, rows)
                store.keys.acknowledge(cursor, 1, 1)
            pairs = [SaePair("sae-a", "sae-b", "kme-b"), *foreign_pairs(config)]
            supply = Supply(store.keys, "kme-a", pairs, Limits(), WallClock())
            kme = config.file.kme
            tls = server_tls(config.path(kme.certificate), config.path(kme.key), config.path(kme.ca))
            async with AsyncExitStack() as stack:
                reloads = site_reloads(config)
                await open_doors(stack, config, supply, {"": store}, tls, reloads)
                return await act(config, supply, rows, *([reloads] if reloading else []))
        finally:
            database.close()

    return asyncio.run(main())


def sae_tls(config):
    pki = config.directory / "pki"
    return client_tls(pki / "sae.pem", pki / "sae.key", pki / "ca.pem", "kme-a")


async def http_get(address, tls, path):
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname=host)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: kme\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_one_supply_behind_every_door_gives_each_key_once(site):
    declared = entries()

    async def act(config, supply, rows):
        client = Etsi014Client(f"https://{config.file.kme.listen}", sae_tls(config), "sae-a", "sae-b")
        got = [(await client.get_key()).material]
        status, answer = await http_get(declared["skip"]["listen"], sae_tls(config), "/key?remoteSystemID=kp-b")
        assert status == 200
        got.append(bytes.fromhex(answer["key"]))
        got += [key.material for key in supply.enc_keys("sae-a", "sae-b", 2)]
        await client.close()
        with pytest.raises(InsufficientKeys):
            supply.enc_keys("sae-a", "sae-b", 1)
        return got, rows

    got, rows = served(site, declared, act)
    assert sorted(got) == sorted(row.material for row in rows)


def test_streams_and_interworking_answer_at_their_addresses(site):
    declared = entries()

    async def act(config, supply, rows):
        host, port = declared["etsi004"]["listen"].split(":")
        async with Etsi004Client(host, int(port), sae_tls(config)) as app:
            opened = await app.open_connect("qkd://a", "sae:sae-b", Qos(32, ttl_s=60))
            assert opened.status is Status.NO_QKD_CONNECTION  # nobody at the other site
        assert supply.status("sae-a", "sae-b").stored_key_count == len(rows)
        pki = config.directory / "pki"
        files = SiteCa.load(pki).issue_kme("kme-x", ["127.0.0.1"], interworking=True).write(pki, "kme-x")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_cert_chain(files[0], files[1])
        tls.load_verify_locations(files[2])
        return await http_get(declared["etsi020"]["listen"], tls, "/kmapi/versions")

    assert served(site, declared, act) == (200, {"versions": ["v1"]})


def test_what_is_not_declared_is_not_opened(site):
    before = set(listeners())

    async def act(config, _, __):
        opened = [entry for entry in listeners() if entry not in before]
        port = int(config.file.kme.listen.rpartition(":")[2])
        return [entry for entry in opened if entry.endswith(f":{port:04X}")], len(opened)

    kme, _ = served(site, {}, act)
    assert len(kme) == 1


PSK = {"router-a": {"sae": "sae-a", "file": "router-a.psk"}}
SKIP = {"local_system_id": "kp-a", "remote_systems": {"kp-b": ["sae-b"]}}


def psk_entry(site, text=None, mode=0o600, **more):
    site.set(agent=None)  # it would come by a certificate
    path = site.directory / "router-a.psk"
    path.write_text(text or f"{bytes(range(1, 33)).hex()}\n")
    path.chmod(mode)
    return {"skip": {**SKIP, "psk_listen": f"127.0.0.1:{free_ports(1)[0]}", "psk": PSK, **more}}


async def ask_psk(declared, psk, path="/key?remoteSystemID=kp-b"):
    port = int(declared["skip"]["psk_listen"].rpartition(":")[2])
    return await psk_ask(port, b"router-a", psk, path)


def test_an_encryptor_with_a_preshared_key_has_that_way_and_no_other(site):
    declared = psk_entry(site)

    async def act(config, _supply, rows):
        status, answer = await ask_psk(declared, bytes(range(1, 33)))
        client = Etsi014Client(f"https://{config.file.kme.listen}", sae_tls(config), "sae-a", "sae-b")
        with pytest.raises(HeliographError, match=r"(?i)unauthori[sz]ed|401"):
            await client.get_key()
        await client.close()
        return status, answer["key"], [row.material.hex() for row in rows]

    status, key, rows = served(site, declared, act)
    assert status == 200
    assert key in rows


def test_a_renewed_preshared_key_replaces_the_old_one_and_a_bad_file_replaces_none(site):
    declared = psk_entry(site)
    old, new = bytes(range(1, 33)), bytes(range(50, 114))

    async def act(_config, _supply, _rows, reloads):
        path = site.directory / "router-a.psk"
        path.write_text("not hexadecimal")
        with pytest.raises(ConfigurationError, match="hexadecimal"):
            await reloads.reload("SIGHUP")
        before = await ask_psk(declared, old, "/capabilities")
        path.write_text(new.hex())
        await reloads.reload("SIGHUP")
        after = await ask_psk(declared, new, "/capabilities")
        with pytest.raises(PskRefused):
            await ask_psk(declared, old, "/capabilities")
        return before[0], after[0]

    assert served(site, declared, act, reloading=True) == (200, 200)


async def open_psk(declared, psk):
    port = int(declared["skip"]["psk_listen"].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tls = psk_client(AES_256_GCM_SHA384, b"router-a", psk)
    await shake_hands(tls, reader, writer)
    return tls, reader, writer


async def answers(connection):
    """Ask over an open connection; tell whether there was an answer before it ended."""
    tls, reader, writer = connection
    with contextlib.suppress(ConnectionError):
        tls.connection.sendall(b"GET /capabilities HTTP/1.1\r\nHost: kme\r\n\r\n")
        writer.write(tls.give())
        while got := await reader.read(65536):
            tls.take(got)
            with contextlib.suppress(SSL.WantReadError):
                return b" 200 " in tls.connection.recv(16384)
    return False


def test_a_connection_under_a_preshared_key_ends_when_the_key_is_replaced_and_not_before(site):
    declared = psk_entry(site)

    async def act(_config, _supply, _rows, reloads):
        kept = await open_psk(declared, bytes(range(1, 33)))
        assert await answers(kept)
        await reloads.reload("SIGHUP")
        assert await answers(kept)
        (site.directory / "router-a.psk").write_text(bytes(range(50, 114)).hex())
        await reloads.reload("SIGHUP")
        assert not await answers(kept)
        kept[2].close()

    served(site, declared, act, reloading=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="apt-get install -y openssl")
def test_a_preshared_key_changes_its_version_of_tls_at_a_reload_and_its_connections_end(site):
    declared = psk_entry(site, tls12=True)
    psk = bytes(range(1, 33))
    port = declared["skip"]["psk_listen"].rpartition(":")[2]

    def by_tls_1_2():
        words = ["-psk_identity", "router-a", "-psk", psk.hex(), "-tls1_2", "-ign_eof"]
        ask = b"GET /capabilities HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n"
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *words]
        return b" 200 " in subprocess.run(command, input=ask, capture_output=True, timeout=20, check=False).stdout

    async def act(_config, _supply, _rows, reloads):
        kept = await open_psk(declared, psk)
        assert (await answers(kept), await asyncio.to_thread(by_tls_1_2)) == (True, False)
        document = site.document()
        document["skip"]["psk"]["router-a"]["tls12"] = True
        site.write(document)
        await reloads.reload("SIGHUP")
        assert (await answers(kept), await asyncio.to_thread(by_tls_1_2)) == (False, True)
        kept[2].close()
        with pytest.raises(PskRefused):
            await ask_psk(declared, psk, "/capabilities")

    served(site, declared, act, reloading=True)


@pytest.mark.parametrize(
    ("text", "mode", "cause"),
    [
        (None, 0o640, "others can read it"),
        (None, 0o604, "others can read it"),
        ("00" * 32, 0o600, "only zeros"),
        ("ab" * 31, 0o600, "hexadecimal"),
        ("ab" * 65, 0o600, "hexadecimal"),
        ("ab" * 32 + "\n" + "cd" * 4, 0o600, "hexadecimal"),
        ("correct horse battery staple correct", 0o600, "hexadecimal"),
    ],
)
def test_a_preshared_key_that_others_know_or_that_is_none_is_refused_at_the_start(site, text, mode, cause):
    async def act(*_):
        pytest.fail("the door was opened")

    with pytest.raises(ConfigurationError, match=cause) as refusal:
        served(site, psk_entry(site, text, mode), act)
    assert "\n" not in str(refusal.value)
    assert (text or "0102030405").strip()[:16] not in str(refusal.value)


def test_one_preshared_key_for_two_identities_is_refused(site):
    (site.directory / "router-b.psk").write_text(bytes(range(1, 33)).hex())
    (site.directory / "router-b.psk").chmod(0o600)
    entry = psk_entry(site)
    entry["skip"]["psk"] = {**PSK, "router-b": {"sae": "sae-b", "file": "router-b.psk"}}

    async def act(*_):
        pytest.fail("the door was opened")

    with pytest.raises(ConfigurationError, match=r"same key|is in no pair"):
        served(site, entry, act)


def test_groups_over_other_key_managers_are_declared_in_site_toml(site):
    declared = entries()["etsi020"]
    groups = [
        {"master": "sae-a", "slaves": ["sae-a2", "sae-x", "sae-y"], "stock": 3, "key_size_bits": 512},
        {"master": "sae-x", "slaves": ["sae-a", "sae-y"]},  # for one SAE here, and to be passed on
        {"master": "sae-y", "slaves": ["sae-x"]},  # to be passed on only
    ]
    document = {"etsi020": {**declared, "peers": [PEER, BEHIND_Y], "groups": groups, "extension_pen": 32473}}
    site.write({**site.document(), **document})
    config = read_site(site.toml)
    assert {"sae-a", "sae-a2"} <= config.local_saes
    assert not {"sae-x", "sae-y"} & config.local_saes
    one, two, three = config.file.etsi020.foreign_groups()
    assert (one.origin, one.way.here, one.way.legs) == (None, ("sae-a2",), {"kme-x": ("sae-x",), "kme-y": ("sae-y",)})
    assert (two.origin, two.way.here, two.way.legs) == ("kme-x", ("sae-a",), {"kme-y": ("sae-y",)})
    assert (three.origin, three.way.here, three.way.legs) == ("kme-y", (), {"kme-x": ("sae-x",)})
    pairs = {(pair.local_sae, pair.remote_sae): pair.remote_kme for pair in foreign_pairs(config)}
    assert pairs == {("sae-a", "sae-x"): "kme-x", ("sae-a", "sae-y"): "kme-y"}
    assert config.file.etsi020.said("kme-a")["E32473_heliograph_path"] == ["kme-a"]
    supply = make_supply(config, NoKeys(), (WallClock(), WallClock()), lambda: True, foreign_pairs(config))
    status = supply.status("sae-a", "sae-x")
    assert (status.target_kme, status.max_sae_id_count) == ("kme-x", 2)
    assert supply.key_sizes("sae-a", "sae-a2\x1fsae-x\x1fsae-y") == (512,)
    with pytest.raises(InsufficientKeys):
        supply.enc_keys("sae-a", "sae-x", 1, additional=["sae-a2", "sae-y"])


def test_the_example_of_the_page_about_groups_is_taken(site):
    page = (ROOT / "docs/how-to/groups-and-quotas.md").read_text()
    (block,) = re.findall(r"<!-- interworking -->\n```toml\n(.*?)```", page, re.DOTALL)
    site.write({**site.document(), **tomllib.loads(block)})
    config = read_site(site.toml)
    own, passing = config.file.etsi020.foreign_groups()
    assert (own.origin, own.way.here, set(own.way.legs)) == (None, ("sae-a2",), {"kme-x", "kme-y"})
    assert (passing.origin, passing.way.here, passing.way.legs) == ("kme-y", ("sae-a",), {"kme-x": ("sae-x",)})


class NoKeys:
    """A store without keys."""

    def stored_key_count(self, *_):
        return 0

    def deliver_to_master(self, *_, **__):
        raise InsufficientKeys("none")


REFUSED = {
    "skip no door": ({"skip": SKIP}, "opens no door"),
    "skip psk without a door": ({"skip": {**SKIP, "listen": "127.0.0.1:1", "psk": PSK}}, "go together"),
    "skip door without psk": ({"skip": {**SKIP, "psk_listen": "127.0.0.1:1"}}, "go together"),
    "skip psk identity": (
        {"skip": {**SKIP, "psk_listen": "127.0.0.1:1", "psk": {"a b": PSK["router-a"]}}},
        "printable ASCII",
    ),
    "skip psk for TLS 1.2 alone": (
        {"skip": {**SKIP, "psk_listen": "127.0.0.1:1", "psk": {"x": {**PSK["router-a"], "tls12": True}}}},
        "tls12 = true and \\[skip\\] has not",
    ),
    "skip psk twice": (
        {"skip": {**SKIP, "psk_listen": "127.0.0.1:1", "psk": {**PSK, "x": PSK["router-a"]}}},
        "comes twice",
    ),
    "skip psk of a stranger": (
        {"skip": {**SKIP, "psk_listen": "127.0.0.1:1", "psk": {"x": {"sae": "sae-x", "file": "x"}}}},
        "in no pair",
    ),
    "skip psk beside a certificate": (
        {"skip": {**SKIP, "psk_listen": "127.0.0.1:1", "psk": PSK}, "boundary": {"certificates": ["sae-a"]}},
        "two ways",
    ),
    "skip without systems": ({"skip": {"listen": "127.0.0.1:1", "local_system_id": "x", "remote_systems": {}}}, "skip"),
    "skip address": ({"skip": {"listen": "here", "local_system_id": "x", "remote_systems": {"y": ["z"]}}}, "host:port"),
    "skip psk": ({"skip": {"listen": "127.0.0.1:1", "local_system_id": "x", "remote_systems": {}, "psk": "k"}}, "psk"),
    "streams promise": (
        {"etsi004": {"listen": "h:1", "promised_bps": -1, "peer_listen": "h:2", "peer_dial": "h:3"}},
        "negative",
    ),
    "streams peer": (
        {"etsi004": {"listen": "h:1", "promised_bps": 1, "peer_listen": "h:2", "peer_dial": "nowhere"}},
        "peer_dial",
    ),
    "interworking path": (
        {"etsi020": {"listen": "h:1", "url": "https://h:1/path", "peers": [PEER]}},
        "without a path",
    ),
    "interworking without TLS": ({"etsi020": {"listen": "h:1", "url": "http://h:1", "peers": [PEER]}}, "https"),
    "interworking with nobody": ({"etsi020": {"listen": "h:1", "url": "https://h:1", "peers": []}}, "at least one"),
    "interworking with itself": (
        {"etsi020": {"listen": "h:1", "url": "https://h:1", "peers": [{**PEER, "kme": "kme-a"}]}},
        "kme = 'kme-a' is this key manager",
    ),
    "interworking twice": ({"etsi020": {"listen": "h:1", "url": "https://h:1", "peers": [PEER, PEER]}}, "each KME"),
    "interworking extensions under ETSI's number": (
        {"etsi020": {"listen": "h:1", "url": "https://h:1", "peers": [PEER], "extension_pen": 13019}},
        "which is reserved",
    ),
    "interworking SAE at two places": (
        {"etsi020": {"listen": "h:1", "url": "https://h:1", "peers": [PEER, {**BEHIND_Y, "saes": ["sae-x"]}]}},
        "behind kme-x and behind kme-y",
    ),
    "interworking SAE here and there": (
        {"etsi020": {"listen": "h:1", "url": "https://h:1", "peers": [PEER, {**BEHIND_Y, "saes": ["sae-a"]}]}},
        "is here and behind kme-y",
    ),
    "interworking group of one site": (
        {
            "etsi020": {
                "listen": "h:1",
                "url": "https://h:1",
                "peers": [PEER],
                "groups": [{"master": "sae-a", "slaves": ["sae-a2"]}],
            }
        },
        r"a group of \[kme\]",
    ),
    "interworking group that has too much": (
        {
            "etsi020": {
                "listen": "h:1",
                "url": "https://h:1",
                "peers": [PEER],
                "groups": [{"master": "sae-a", "slaves": ["sae-x"], "stock": 5000}],
            }
        },
        "between 0 and 4096",
    ),
    "interworking key alone": (
        {"etsi020": {"listen": "h:1", "url": "https://h:1", "peers": [PEER], "key": "k"}},
        "go together",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_entry_that_could_not_be_served_is_refused_at_the_start(site, case):
    declared, cause = REFUSED[case]
    site.set(agent=None)
    site.write({**site.document(), **declared})
    with pytest.raises(ConfigurationError, match=cause) as refusal:
        read_site(site.toml)
    assert str(refusal.value).startswith(f"{site.toml}: ")
    assert "\n" not in str(refusal.value)


async def shown(address, tls):
    """Return the serial number of the certificate that a door shows, over a connection of its own."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname=host)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(found).serial_number


def test_every_door_shows_a_renewed_certificate_and_a_bad_one_changes_none(site):
    declared = entries()
    doors = [declared[name]["listen"] for name in ("skip", "etsi004", "etsi020")]

    async def act(config, _supply, _rows, reloads):
        pki = config.directory / "pki"
        host, port = declared["etsi004"]["listen"].split(":")
        async with Etsi004Client(host, int(port), sae_tls(config)) as app:
            old = {await shown(door, sae_tls(config)) for door in doors}
            fresh = SiteCa.load(pki).issue_kme("kme-a", ["127.0.0.1"])
            (pki / "kme.pem").write_bytes(fresh.certificate)
            with pytest.raises(ConfigurationError, match="does not belong to"):
                await reloads.reload("Ann")
            assert {await shown(door, sae_tls(config)) for door in doors} == old
            (pki / "kme.key").write_bytes(fresh.key)
            assert await reloads.reload("Ann") == "renewed: pki/kme.pem, pki/kme.key"
            serial = x509.load_pem_x509_certificate(fresh.certificate).serial_number
            assert [await shown(door, sae_tls(config)) for door in doors] == [serial] * 3
            assert serial not in old
            # An established connection goes on.
            opened = await app.open_connect("qkd://a", "sae:sae-b", Qos(32, ttl_s=60))
            assert opened.status is Status.NO_QKD_CONNECTION

    served(site, declared, act, reloading=True)
