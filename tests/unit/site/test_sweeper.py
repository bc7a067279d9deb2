"""The sweeper of a running store goes on, whatever a step runs into."""

import asyncio
import contextlib
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from structlog.testing import capture_logs

import heliograph
from heliograph.errors import StoreUnavailable
from heliograph.site import sweeper
from heliograph.storage.database import Database
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness


def test_a_step_that_meets_an_altered_row_is_told_once_and_the_sweeper_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeper, "SWEEP_S", 0.0)
    database = Database(":memory:", FileKek.create(tmp_path / "kek", SystemRandomness()))
    rounds = []

    def altered():
        raise struct.error("what stands in the row")

    def full():
        raise StoreUnavailable("the disk is full")

    async def scenario():
        enough = asyncio.Event()
        loop = asyncio.get_running_loop()

        def last():
            rounds.append(1)
            if len(rounds) == 3:
                loop.call_soon_threadsafe(enough.set)

        with ThreadPoolExecutor(1) as store:
            task = asyncio.create_task(sweeper.sweep(database, store, altered, full, last))
            ended = asyncio.create_task(enough.wait())
            await asyncio.wait({task, ended}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            assert not task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert len(rounds) >= 3
    assert [line["kind"] for line in logs] == ["error"]
    assert "what stands in the row" not in str(logs)
    database.close()


def test_a_site_that_was_down_sweeps_before_the_first_interval_is_over(tmp_path, monkeypatch):
    """Its keys may have outlived their time meanwhile, and its doors open now."""
    monkeypatch.setattr(sweeper, "SWEEP_S", 3600.0)
    database = Database(":memory:", FileKek.create(tmp_path / "kek", SystemRandomness()))

    async def scenario():
        swept, loop = asyncio.Event(), asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as store:
            step = lambda: loop.call_soon_threadsafe(swept.set)  # noqa: E731
            task = asyncio.create_task(sweeper.sweep(database, store, step))
            try:
                async with asyncio.timeout(20):
                    await swept.wait()
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    asyncio.run(scenario())
    database.close()


def test_whoever_commits_a_stores_calls_together_settles_what_they_leave():
    for path in Path(heliograph.__file__).parent.rglob("*.py"):
        assert not re.search(r"commit_together\(partial\(run_group, database\)\)", path.read_text()), path
