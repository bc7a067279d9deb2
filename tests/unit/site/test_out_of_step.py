"""A classical channel that loses or changes a byte is noticed and taken up again; the pool survives it."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from link_pair import link_pair, running, until

from heliograph.site import engine
from heliograph.transport.tcp import TcpTransport


@pytest.fixture
def room():
    with tempfile.TemporaryDirectory(prefix="hgo") as name:
        yield Path(name)


@pytest.mark.parametrize("harm", ["flipped", "lost"])
def test_one_bad_frame_costs_a_connection_and_not_the_link(room, monkeypatch, harm):
    monkeypatch.setattr(engine, "_JUNK_S", 0.3)
    send = TcpTransport.send
    harmed = []

    async def sometimes_bad(self, frame):
        if len(frame) > 2000 and not harmed:
            harmed.append(frame)
            if harm == "lost":
                return
            frame = frame[:100] + bytes([frame[100] ^ 1]) + frame[101:]
        await send(self, frame)

    monkeypatch.setattr(TcpTransport, "send", sometimes_bad)

    async def scenario():
        async with link_pair(room) as (tx, rx), running(tx, rx):
            for end in (tx, rx):
                object.__setattr__(end.link._parts, "block_seconds", 1.0)
            await until(lambda: harmed)
            made = len(tx.committed())
            await until(lambda: len(tx.committed()) >= made + 3)
            assert tx.store.records.marks().epoch == 1

    asyncio.run(scenario())
