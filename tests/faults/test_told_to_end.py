"""A rehearsal that is told to end by SIGTERM, or loses its terminal, takes back all that it began, as at Ctrl-C."""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # real processes

HELIOGRAPH = (sys.executable, "-m", "heliograph.cli.main")
CHAOS = ["kme-chaos"]
OVER_TLS = ["kme-chaos", "--malformed", "10000000", "--over-tls"]
KILLS = ["kme-chaos", "--front-end-kills", "500"]
PARTITIONS = ["kme-chaos", "--partitions", "500", "--between", "nodes"]
FLOODS, DEMO = ["bench", "kme-floods"], ["demo", "--seconds", "600", "--json"]


def mentioning(room):
    """Return the processes that the rehearsal in ``room`` started: it is named in their words."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            state = (entry / "status").read_text()
        except OSError:
            continue
        if str(room) in words and "\nState:\tZ" not in state:
            found.add(int(entry.name))
    return found


@pytest.fixture
def room():
    with tempfile.TemporaryDirectory(prefix="hgt") as name:  # short: a Unix socket's path has 107 bytes at most
        Path(name).chmod(0o755)  # PostgreSQL runs as another user
        yield Path(name)


async def begun(room, words, *, ignoring_ctrl_c=False):
    """Start a command, and return it when it has made its directory, and a process in it."""
    process = await asyncio.create_subprocess_exec(
        *HELIOGRAPH, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(room)}, start_new_session=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignoring_ctrl_c else None,
    )  # fmt: skip
    async with asyncio.timeout(60):
        while not (mentioning(room) and list(room.iterdir())):
            assert process.returncode is None, (await process.communicate())[1]
            await asyncio.sleep(0.02)
    return process


async def ended(room, process):
    async with asyncio.timeout(60):
        _, err = await process.communicate()
        while mentioning(room):  # noqa: ASYNC110  - other processes
            await asyncio.sleep(0.02)
    assert list(room.iterdir()) == []
    assert b"Traceback" not in err
    return process.returncode


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (CHAOS, signal.SIGTERM),
        pytest.param(OVER_TLS, signal.SIGHUP, marks=pytest.mark.soak),
        pytest.param(CHAOS, signal.SIGINT, marks=pytest.mark.soak),
        pytest.param(OVER_TLS, signal.SIGTERM, marks=pytest.mark.soak),
        pytest.param(FLOODS, signal.SIGTERM, marks=pytest.mark.soak),
        pytest.param(KILLS, signal.SIGTERM, marks=pytest.mark.soak),
        pytest.param(PARTITIONS, signal.SIGTERM, marks=pytest.mark.soak),
    ],
)
def test_a_command_that_is_told_to_end_leaves_no_process_and_no_directory(room, words, number):
    async def scene():
        process = await begun(room, words)
        process.send_signal(number)
        assert await ended(room, process) == (130 if number == signal.SIGINT else 128 + number)

    asyncio.run(scene())


def test_a_command_in_the_background_of_a_script_where_ctrl_c_is_ignored_ends_in_order_too(room):
    async def scene():
        process = await begun(room, PARTITIONS, ignoring_ctrl_c=True)
        process.terminate()
        assert await ended(room, process) == 128 + signal.SIGTERM

    asyncio.run(scene())


@pytest.mark.soak
def test_a_demo_that_loses_its_terminal_ends_in_order(room):
    async def scene():
        process = await begun(room, DEMO)
        process.send_signal(signal.SIGHUP)
        assert await ended(room, process) == 128 + signal.SIGHUP

    asyncio.run(scene())
