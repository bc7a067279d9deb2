"""The status socket: its owner's only, one document for each connection, and an answer even when there is none."""

import asyncio
import stat
import tempfile
from pathlib import Path

import msgspec
import pytest

from heliograph.errors import ConfigurationError, StoreUnavailable, TransportClosed
from heliograph.site.status_socket import read_status, serve_status
from heliograph.status import Budget, KmeStatus, LinkStatus, PadFlow, SiteStatus

TEXTS = {"link": "a-b", "state": "running", "peer": "site-b", "bootstrap": "psk", "last_discard": ""}
FIGURES = {field.name: 0 for field in msgspec.structs.fields(LinkStatus)}
BUDGET = Budget("normal", PadFlow(1, 2, 3, 4, 5, 6), PadFlow(1, 2, 3, 4, 5, 6), 1.5, 2.5, None, 7.5)
LINK = msgspec.convert({**FIGURES, **TEXTS, "first_key_s": None, "budget": msgspec.to_builtins(BUDGET)}, LinkStatus)
STATUS = SiteStatus("site-a", 1, "computational", "file", LINK, KmeStatus(1, 2, 3), None)


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(prefix="hgu") as name:
        yield Path(name) / "status.sock"


def served(path, status, act):
    async def scene():
        server = await serve_status(path, status)
        try:
            return await act()
        finally:
            server.close()

    return asyncio.run(scene())


async def answer():
    return STATUS


def test_whoever_may_open_it_gets_the_status(path):
    async def act():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        return await asyncio.gather(*(read_status(path) for _ in range(20)))

    assert served(path, answer, act) == [STATUS] * 20


def test_a_store_that_cannot_be_read_is_the_answer(path):
    async def broken():
        raise StoreUnavailable("store x: the disk is full")

    async def act():
        with pytest.raises(TransportClosed, match="the disk is full"):
            await read_status(path)

    served(path, broken, act)


def test_a_reader_that_leaves_disturbs_nobody(path):
    async def act():
        for _ in range(10):
            _, writer = await asyncio.open_unix_connection(path)
            writer.close()
        return await read_status(path)

    assert served(path, answer, act) == STATUS


def test_a_socket_left_by_a_killed_site_is_replaced(path):
    async def scene():
        first = await serve_status(path, answer)
        second = await serve_status(path, answer)
        assert await read_status(path) == STATUS
        for server in (first, second):
            server.close()

    asyncio.run(scene())


def test_a_place_that_is_taken_or_absent_is_named(path):
    path.mkdir()
    for wrong in (path, path / "absent" / "status.sock"):
        with pytest.raises(ConfigurationError, match="status socket"):
            asyncio.run(serve_status(wrong, answer))


def test_no_site_is_told_in_one_line(path):
    with pytest.raises(TransportClosed, match="is it running"):
        asyncio.run(read_status(path))
    path.write_text("not a socket")
    with pytest.raises(TransportClosed, match="is it running"):
        asyncio.run(read_status(path))
