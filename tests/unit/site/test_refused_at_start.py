"""What a site finds taken when it starts: one line, exit 1, and neither a pad nor a slot is touched."""

import asyncio
import json
import signal
import socket
import sqlite3
import sys
import tempfile
from pathlib import Path

import pytest
from site_on_disk import SiteOnDisk, listening, make_site

RUN = (sys.executable, "-m", "heliograph.cli.main", "site", "run")


@pytest.fixture
def room():
    with tempfile.TemporaryDirectory(prefix="hgr") as name:
        yield Path(name)


def a_site(room, role):
    """Set up a site whose light answers, so that only what the test takes away is missing."""
    light = room / "light.sock"
    fibre = listening(light)
    return SiteOnDisk(make_site(room / "site", light=light, role=role)), fibre


async def start(site):
    return await asyncio.create_subprocess_exec(
        *RUN, str(site.toml), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def refused(site, *says):
    process = await start(site)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    lines = [line for line in err.decode().splitlines() if line]
    assert process.returncode == 1, lines
    assert out == b""
    assert len(lines) == 1, lines
    assert lines[0].startswith("heliograph: ")
    for word in says:
        assert word in lines[0], lines[0]


def port_of(site, entry):
    document = site.document()
    for name in entry.split("."):
        document = document[name]
    return int(document.rpartition(":")[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "entry", "says"),
    [
        ("receiver", "link.listen", "classical channel"),
        ("transmitter", "kme.listen", "KME address"),
        ("receiver", "agent.tunnel.control", "control"),
        ("receiver", "agent.tunnel.outer_listen", "listen"),
        ("transmitter", "agent.tunnel.forwards.host-b", "listen"),
    ],
)
def test_a_port_in_use_is_named(room, role, entry, says):
    site, fibre = a_site(room, role)
    book = (site.directory / "psk.book").read_bytes()
    port = port_of(site, entry)
    with fibre, socket.create_server(("127.0.0.1", port)):
        asyncio.run(refused(site, says, str(port)))
    assert (site.directory / "psk.book").read_bytes() == book
    with sqlite3.connect(site.directory / "store" / "site.db") as store:
        assert store.execute("SELECT epoch, touched FROM link_state").fetchone() == (0, 0)
        assert store.execute("SELECT sum(bits_in + bits_spent) FROM link_ledger").fetchone() == (0,)
    store.close()
    assert not (site.directory / "status.sock").exists()


def test_a_status_socket_that_cannot_be_made_is_named(room):
    site, fibre = a_site(room, "transmitter")
    (site.directory / "status.sock").mkdir()
    with fibre:
        asyncio.run(refused(site, "status socket", "status.sock"))


def test_a_second_process_on_one_store_is_refused_and_disturbs_nothing(room):
    site, fibre = a_site(room, "receiver")

    async def scene():
        first = await start(site)
        try:
            async with asyncio.timeout(60):
                assert json.loads(await first.stdout.readline()) == {"ready": True}
            await refused(site, "store", "another process")
            assert first.returncode is None
            assert (site.directory / "status.sock").exists()
        finally:
            first.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                _, err = await first.communicate()
        assert first.returncode == 0
        assert err == b""

    with fibre:
        asyncio.run(scene())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_site_ends_quietly_and_soon_when_asked(room, number):
    """Also before it ever met its peer, with an SAE's idle connection open."""
    site, fibre = a_site(room, "transmitter")

    async def scene():
        loop = asyncio.get_running_loop()
        began = loop.time()
        process = await start(site)
        async with asyncio.timeout(60):
            await process.stdout.readline()
        started_in = loop.time() - began
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(site, "kme.listen"))
        process.send_signal(number)
        # Starting takes half a second of a processor: where it took longer than two seconds, the machine is busy.
        async with asyncio.timeout(max(2.0, started_in)):
            await process.wait()
        writer.close()
        err = (await process.stderr.read()).decode()
        assert process.returncode == 0
        assert "Traceback" not in err
        assert not (site.directory / "status.sock").exists()

    with fibre:
        asyncio.run(scene())
