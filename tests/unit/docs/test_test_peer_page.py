"""The page on a peer to test against, run as it is written, and the doors that its commands leave out."""

import asyncio
import re
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from markdown_pages import ROOT, blocks
from test_walkthroughs import _running, _shell

from heliograph.errors import ConfigurationError
from heliograph.http.tls import client_tls
from heliograph.kme.etsi004 import Qos, Status
from heliograph.lab.kme_peer import FIRST_PORT, PORTS_EACH, KmePeer
from heliograph.lab.ports import free_ports
from heliograph.testing.psk_client import ask
from heliograph.transport.etsi004_client import Etsi004Client

pytestmark = [
    pytest.mark.slow,  # a real process
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install -y curl"),
]


def first_free():
    """Return a port from which on all that the command needs are free."""
    for _ in range(50):
        (first,) = free_ports(1)
        with ExitStack() as held:
            try:
                for port in range(first, first + 2 * PORTS_EACH):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    pytest.fail("no row of free ports")


async def streams(first, directory):
    async def application(site, door):
        pki = directory / "rehearsal" / site / "pki"
        return Etsi004Client("127.0.0.1", door, client_tls(pki / "sae.pem", pki / "sae.key", pki / "ca.pem"))

    async with await application("a", first + 3) as alice, await application("b", first + PORTS_EACH + 3) as bob:
        qos = Qos(32, ttl_s=60)
        opened = await alice.open_connect("sae:sae-a", "sae:sae-b", qos)
        assert (await bob.open_connect("sae:sae-a", "sae:sae-b", qos, opened.ksid)).status is Status.SUCCESSFUL
        mine, theirs = await alice.get_key(opened.ksid, 0), await bob.get_key(opened.ksid, 0)
        assert mine.key == theirs.key != b""


async def preshared(first, directory):
    keys = {end: bytes.fromhex((directory / f"rehearsal/{end}/router-{end}.psk").read_text()) for end in "ab"}
    status, mine = await ask(first + 2, b"router-a", keys["a"], "/key?remoteSystemID=key-provider-b")
    path = f"/key/{mine['keyId']}?remoteSystemID=key-provider-a"
    assert (status, (200, mine)) == (200, await ask(first + PORTS_EACH + 2, b"router-b", keys["b"], path))


def test_the_peer_serves_every_door_as_the_page_says(tmp_path):
    page = {block.marker: block.text for block in blocks(ROOT / "docs/how-to/test-peer.md") if block.marker}
    first = first_free()
    text = re.sub(r"\b84([45])(\d)\b", lambda m: str(first + int("84" + m[1] + m[2]) - FIRST_PORT), page["try"])
    with _running(f"{page['peer'].strip()} --first-port {first}", tmp_path, "stdout", "ready"):
        tried = _shell(text, tmp_path)
        assert tried.returncode == 0, tried.stderr
        assert tried.stdout.splitlines() == [
            "014: the same key at both sites",
            "SKIP: the same key at both encryptors",
        ]
        asyncio.run(streams(first, tmp_path))
        asyncio.run(preshared(first, tmp_path))


def test_a_directory_that_holds_something_is_never_written_into(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    with pytest.raises(ConfigurationError, match="no new or empty directory"):
        KmePeer(tmp_path)
    with pytest.raises(ConfigurationError, match="--first-port"):
        KmePeer(tmp_path / "new", 80)
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs"]


def test_the_preshared_keys_are_where_it_says(tmp_path):
    peer = KmePeer(tmp_path / "peer", first_free())
    peer.prepare()
    named = re.findall(r"\S+\.psk", peer.describe())
    assert [Path(name).name for name in named if Path(name).is_file()] == ["router-a.psk", "router-b.psk"]


def test_a_port_in_use_is_named_before_a_file_is_written(tmp_path):
    first = first_free()
    with socket.create_server(("127.0.0.1", first + 12)), pytest.raises(ConfigurationError, match=str(first + 12)):
        KmePeer(tmp_path / "new", first)
    assert not (tmp_path / "new").exists()
    KmePeer(tmp_path / "new", first)


def test_keys_that_were_fetched_are_followed_by_new_ones(tmp_path):
    async def main():
        peer = KmePeer(tmp_path / "peer", first_free())
        peer.prepare()
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(peer.run(ready.set, stop))
        await asyncio.wait({running, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
        keys = peer._sites[0].store.keys
        while keys.stored_key_count("sae-a", "sae-b") > 10:
            keys.deliver_to_master("sae-a", "sae-b", 10, 0.0)
        async with asyncio.timeout(30):
            while keys.stored_key_count("sae-a", "sae-b") < 128:  # noqa: ASYNC110  - it refills in its own time
                await asyncio.sleep(0.05)
        stop.set()
        await running

    asyncio.run(main())
