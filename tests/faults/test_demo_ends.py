"""The demo ends in one line, whatever ends it, and leaves no process and no directory behind."""

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # real processes or real time: `make test` runs it

HELIOGRAPH = (sys.executable, "-m", "heliograph.cli.main")


def children(pid):
    """Return the processes started by ``pid``, by the argument that tells them apart."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int(re.search(r"^PPid:\s+(\d+)$", (entry / "status").read_text(), re.MULTILINE)[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, TypeError):
            continue
        if parent == pid and b"heliograph.lab.child" in words:
            last = words[-2].decode()
            name = "fibre" if last.endswith("FIBRE.toml") else f"site_{Path(last).parent.name}"
            found[name] = int(entry.name)
    return found


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class Demo:
    """A running demo whose temporary directory is our own."""

    def __init__(self, process, room, started):
        self.process = process
        self.room = room
        self.started = started

    async def end(self):
        async with asyncio.timeout(30):
            out, err = await self.process.communicate()
        return self.process.returncode, out.decode(), [line for line in err.decode().splitlines() if line]

    async def no_child_left(self):
        async with asyncio.timeout(10):
            while True:
                if not any(alive(pid) for pid in self.started.values()):
                    return
                await asyncio.sleep(0.02)


async def running_demo(room, *arguments):
    """Start a long demo and wait until its three processes are there."""
    process = await asyncio.create_subprocess_exec(
        *HELIOGRAPH, "demo", "--seconds", "600", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(room)}, start_new_session=True,
    )  # fmt: skip
    async with asyncio.timeout(20):
        while True:
            started = children(process.pid)
            if len(started) == 3:
                break
            await asyncio.sleep(0.02)
    return Demo(process, room, started)


@pytest.fixture
def room():
    with tempfile.TemporaryDirectory(prefix="hgd") as name:  # short: a Unix socket's path has 107 bytes at most
        yield Path(name)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_all_four_processes_and_removes_the_directory(room, number):
    async def scene():
        demo = await running_demo(room, "--json")
        demo.process.send_signal(number)
        code, out, lines = await demo.end()
        assert code == 1
        assert len(lines) == 1
        assert lines[0].startswith("heliograph: ")
        assert "signal" in json.loads(out)["error"]["message"]
        await demo.no_child_left()
        assert list(room.iterdir()) == []

    asyncio.run(scene())


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_every_process_and_still_ends_in_order(room):
    async def scene():
        demo = await running_demo(room, "--json")
        os.killpg(demo.process.pid, signal.SIGINT)
        code, _, lines = await demo.end()
        assert code == 1
        assert len(lines) == 1
        await demo.no_child_left()
        assert list(room.iterdir()) == []

    asyncio.run(scene())


@pytest.mark.parametrize(
    "name", ["fibre", pytest.param("site_a", marks=pytest.mark.slow), pytest.param("site_b", marks=pytest.mark.slow)]
)
def test_a_process_that_dies_under_the_demo_ends_it_in_one_line(room, name):
    async def scene():
        demo = await running_demo(room, "--json")
        os.kill(demo.started[name], signal.SIGKILL)
        code, out, lines = await demo.end()
        assert code == 1
        assert len(lines) == 1, lines
        assert name in lines[0]
        assert json.loads(out)["error"]["code"] in {"TransportClosed", "ConfigurationError"}
        await demo.no_child_left()
        assert list(room.iterdir()) == []

    asyncio.run(scene())


def test_a_killed_demo_leaves_no_orphans(room):
    async def scene():
        demo = await running_demo(room)
        demo.process.kill()
        await demo.process.wait()
        await demo.no_child_left()

    asyncio.run(scene())
