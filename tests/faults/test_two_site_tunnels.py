"""Two whole sites, light to traffic, with a tunnel of each kind: real processes, killed, dark, out of keys, back."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack

import pytest

from heliograph.lab.bulk import MARKER
from heliograph.lab.network_path import NetworkPath
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.lab.tunnel_kinds import KINDS
from heliograph.lab.wire import frames, recorded
from heliograph.testing.links import example_registration

pytestmark = pytest.mark.slow  # real processes in real time

PATIENCE_S = 60.0
NETWORKS = ("tun", "strongswan", "wireguard")
DRAIN = """
import asyncio, sys
from pathlib import Path
from heliograph.errors import KeySupplyError
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.site.config import read_site

async def drain(config):
    kme, agent = config.file.kme, config.file.agent
    tls = client_tls(config.path(agent.certificate), config.path(agent.key), config.path(kme.ca), kme.id)
    taken = 0
    async with Etsi014Client(f"https://{kme.listen}", tls, agent.sae, agent.peer_sae) as client:
        try:
            while True:
                taken += len(await client.get_keys(1))
        except KeySupplyError:
            print(taken)

asyncio.run(drain(read_site(Path(sys.argv[1]))))
"""


class Run:
    """Two sites with small blocks and a tunnel of one kind between; ``async with`` starts all and waits for a key."""

    def __init__(self, kind: str, directory, **limits: object) -> None:
        self.kind = KINDS[kind]
        if (why := self.kind.missing()) is not None:
            pytest.skip(why)
        self.directory = directory
        self.limits = {**self.kind.limits, **limits}
        self.wire = directory / "wire"
        self.recorded = self.kind.namespaces
        self.key_ids: set[str] = set()

    async def __aenter__(self):
        self.directory.mkdir(mode=0o700)
        self.closing = AsyncExitStack()
        held = ExitStack()
        self.closing.callback(held.close)
        try:
            self.path = held.enter_context(NetworkPath(namespaces=self.kind.namespaces))
            (self.port,) = self.path.ports(1)
            self.ends = held.enter_context(self.kind.open(self.path, self.directory, self.port))
            self.rehearsal = Rehearsal(
                self.directory,
                Ports.free().direct(),
                5.0,
                1,
                self.limits,
                registration=example_registration(),
                hosts=self.path.outer,
                spaces=self.path.spaces,
                tunnels=self.ends.tables,
            )
            self.rehearsal.prepare()
            self.closing.push_async_callback(self.rehearsal.stop_all)
            if self.recorded:
                held.enter_context(recorded(self.path, self.wire))
            await self._sink()
            await self.rehearsal.start_all()
            await self.encrypting()
        except BaseException:
            await self.closing.aclose()
            raise
        return self

    async def _sink(self):
        words = [sys.executable, "-m", "heliograph.lab.bulk", "sink", "0.0.0.0", str(self.port)]
        sink = await asyncio.create_subprocess_exec(*self.path.words(1, *words), stdout=asyncio.subprocess.PIPE)

        async def end():
            sink.kill()
            await sink.wait()

        self.closing.push_async_callback(end)
        assert await sink.stdout.readline() == b"ready\n"

    async def agents(self):
        return [(await self.rehearsal.status(name)).agent for name in self.rehearsal.sites]

    async def until(self, condition, what):
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    agents = await self.agents()
                    self.key_ids |= {agent["key_id"] for agent in agents} - {None}
                    if condition(agents):
                        return agents
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{what}: {[(agent['mode'], agent['alarm'], agent['last_refusal']) for agent in agents]}")

    async def encrypting(self, but: str | None = None):
        """Wait until both sites encrypt under one key, another one than ``but``; return its key_ID."""
        agents = await self.until(
            lambda agents: (
                all(agent["mode"] == "encrypting" and agent["state"] == "Active" for agent in agents)
                and agents[0]["key_id"] == agents[1]["key_id"] != but
            ),
            "no key in use at both sites",
        )
        return agents[0]["key_id"]

    async def rotated(self, times: int):
        before = (await self.agents())[0]["rekeys"]
        await self.until(lambda agents: agents[0]["rekeys"] >= before + times, "the keys do not rotate")

    async def sent(self, size=200_000, seconds=8.0):
        """Send from the host at site 0 to the one at site 1; return how many bytes arrived, 0 if it was cut."""
        words = [sys.executable, "-m", "heliograph.lab.bulk", "source", self.ends.host, str(self.ends.port)]
        source = await asyncio.create_subprocess_exec(
            *self.path.words(0, *words, str(size), str(seconds)), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await source.communicate()
        return json.loads(out.decode().splitlines()[-1]).get("received", 0)

    async def drain(self):
        """Fetch every key that is left for the pair, as another consumer at site A would."""
        site = str(self.rehearsal.sites["site_a"])
        words = self.path.words(0, sys.executable, "-c", DRAIN, site)
        done = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        out, _ = await done.communicate()
        return int(out)

    def check_wire(self):
        if self.recorded:
            seen = list(frames(self.wire))
            assert len(seen) > 100
            assert not [frame for frame in seen if MARKER[:24] in frame], "user traffic crossed the wire in clear"

    def check_logs(self):
        for name in self.rehearsal.sites:
            assert "Traceback" not in (self.directory / f"{name}.log").read_text()

    async def __aexit__(self, *_):
        await self.closing.aclose()


@pytest.mark.parametrize("kind", KINDS)
def test_two_whole_sites_carry_traffic_under_a_key_of_the_link(kind, tmp_path):
    async def scenario():
        async with Run(kind, tmp_path / "r") as run:
            assert await run.sent() == 200_000
            if run.limits["rekey_seconds"] < 5:
                await run.rotated(1)
                assert await run.sent() == 200_000
                assert len(run.key_ids) >= 2
            site = await run.rehearsal.status("site_a")
            assert site.link.blocks >= 1  # its keys came from the light, and from nowhere else
            assert site.agent["components"] == ["qkd"]
        run.check_wire()
        run.check_logs()

    asyncio.run(scenario())


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_a_site_that_was_killed_comes_back_and_an_empty_pool_shuts_the_tunnel_until_there_is_light(kind, tmp_path):
    """Rotations, kill -9 of each site, no light and no key, light again: traffic with a fresh key, and only then."""

    async def scenario():
        async with Run(kind, tmp_path / "r") as run:
            for _ in range(3):
                await run.rotated(1)
                assert await run.sent() == 200_000
            for name in ("site_a", "site_b"):
                before = (await run.agents())[0]["key_id"]
                await run.rehearsal.stop(name, signal.SIGKILL)
                await run.rehearsal.start(name)
                await run.encrypting(but=before)
                assert await run.sent() == 200_000
            await run.rehearsal.stop("fibre", signal.SIGKILL)
            shut = asyncio.create_task(
                run.until(lambda agents: all(a["mode"] == "fail-closed" for a in agents), "still open without a key")
            )
            while not shut.done():
                await run.drain()
                await asyncio.wait({shut}, timeout=0.5)
            assert "no key" in (await shut)[0]["last_refusal"]
            assert await run.sent(seconds=2.0) == 0
            before = set(run.key_ids)
            await run.rehearsal.start("fibre")
            assert await run.encrypting() not in before
            assert await run.sent() == 200_000
        run.check_wire()
        run.check_logs()
        assert len(run.key_ids) >= 6

    asyncio.run(scenario())


@pytest.mark.soak
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_cut_wire_shuts_the_tunnel_at_the_keys_greatest_age_and_it_comes_back_by_itself(kind, tmp_path):
    async def scenario():
        async with Run(kind, tmp_path / "r") as run:
            before = await run.encrypting()
            run.path.cut(down=True)
            await run.until(lambda agents: all(a["mode"] == "fail-closed" for a in agents), "a key outlived its age")
            assert await run.sent(seconds=2.0) == 0
            run.path.cut(down=False)
            run.path.inside(0, "ip", "route", "replace", "default", "via", run.path.outer[1])
            await run.encrypting(but=before)
            assert await run.sent() == 200_000
        run.check_wire()
        run.check_logs()

    asyncio.run(scenario())


def demo(*words):
    command = [sys.executable, "-m", "heliograph.cli.main", "demo", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_demo_of_a_network_tunnel_refuses_what_it_cannot_do_in_one_line():
    done = demo("--tunnel", "tun", "--stay")
    assert done.returncode == 1
    assert "--stay" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_demo_shows_each_network_tunnel(kind):
    if (why := KINDS[kind].missing()) is not None:
        pytest.skip(why)
    done = demo("--tunnel", kind, "--distance-km", "5", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rotations"] >= 2
    assert report["wire"]["in_clear"] == 0
