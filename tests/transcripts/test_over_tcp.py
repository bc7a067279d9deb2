"""The same machines over real TCP, carried out by the sites' own engine, make the same key from the same seed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from heliograph.authentication.anchors.psk import make_book, secret_size
from heliograph.authentication.prefilter import FrameFilter
from heliograph.protocol import actions as a
from heliograph.site.engine import Connection, Engine, EngineParts
from heliograph.site.greeting import greet, welcome
from heliograph.site.workers import Workers
from heliograph.testing.clock import ManualClock
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair
from heliograph.testing.randomness import SeededRandom
from heliograph.testing.side import Side
from heliograph.transport.tcp import dial, listen

SEED = 5
KEYS = (("tx", "sae-a", "sae-b"), ("rx", "sae-b", "sae-a"))


def deliver(side, master, slave):
    return sorted(side.deliverable(master, slave, 10_000))


class Fibre:
    """Both modules: the optics of the in-process pair, with the light and the clicks behind awaitables."""

    def __init__(self, pair, tx, rx):
        self._pair, self._draws = pair, {"emit": tx.randomness, "collect": rx.randomness}
        self._ready = {"emit": asyncio.Event(), "collect": asyncio.Event()}
        pair.rx.randomness = rx.randomness  # the coins of double clicks
        self._events = {}

    async def _meet(self, own, block, light):
        seed = self._draws[own].draw(32)
        (self._pair._light if own == "emit" else self._pair._armed)[block] = (light, seed)
        self._pair._shine(block)
        for _, _, event in self._pair._todo:
            self._events["emit" if isinstance(event, a.Emitted) else "collect"] = event
        if self._pair._todo:
            self._pair._todo.clear()
            for ready in self._ready.values():
                ready.set()
        await self._ready[own].wait()
        self._ready[own].clear()
        return self._events[own]

    async def emit(self, block, light):
        return (await self._meet("emit", block, light)).pulses

    async def collect(self, block, light):
        return (await self._meet("collect", block, light)).detections

    async def close(self):
        """Nothing is open."""


async def serve(side, transport, established, fibre, finished, block_count):
    side.resume(side.plan(established), established, prefilter=True)
    compute = Workers(1)
    with ThreadPoolExecutor(1) as store, closing(compute):
        parts = EngineParts(
            side.records,
            side.commits,
            side.authenticator,
            side.randomness,
            ManualClock(),
            fibre,
            compute,
            store,
            block_seconds=60,
        )

        def observe(item):
            if isinstance(item.action, a.Finish):
                finished.append(side.name)

        def next_block(session):
            if not side.is_transmitter or session.floor >= block_count or session.open_blocks():
                return None
            last = side.commits.assigned()
            return session.begin(session.floor + 1, (last + 1, last + 2))

        engine = Engine(side.session, parts, observe)
        assert isinstance(side.outgoing, FrameFilter)
        running = asyncio.create_task(engine.run(Connection(transport, side.outgoing, side.incoming), next_block))
        while len(finished) < 2 * block_count and not running.done():
            await asyncio.wait([running], timeout=0.02)
        await transport.close()
        await asyncio.gather(running, return_exceptions=True)
        await engine.close()


async def over_tcp(directory, pair):
    registration = quick_registration()
    book = make_book(SeededRandom(SEED, "book").draw(secret_size()))
    tx = Side.create("tx", registration, directory, book, SEED)
    rx = Side.create("rx", registration, directory, book, SEED)
    fibre, finished = Fibre(pair, tx, rx), []
    served = asyncio.get_running_loop().create_future()

    async def accept(transport):
        with ThreadPoolExecutor(1) as thread:
            _, established = await welcome(transport, rx.doors, thread, thread)
        await serve(rx, transport, established, fibre, finished, 1)
        served.set_result(None)

    server = await listen("127.0.0.1", 0, accept)
    async with server:
        transport = await dial("127.0.0.1", server.sockets[0].getsockname()[1])
        with ThreadPoolExecutor(1) as thread:
            _, established = await greet(transport, tx.doors, thread, thread)
        await serve(tx, transport, established, fibre, finished, 1)
        await asyncio.wait_for(served, 20)
    return tx, rx


def test_the_same_seed_over_tcp_gives_the_same_keys(tmp_path):
    here = Pair(quick_registration(), quick_channel(), tmp_path / "here", seed=SEED)
    here.run_block()
    optics = Pair(quick_registration(), quick_channel(), tmp_path / "optics", seed=SEED)
    tx, rx = asyncio.run(asyncio.wait_for(over_tcp(tmp_path / "tcp", optics), 30))
    for name, master, slave in KEYS:
        over_wire = deliver({"tx": tx, "rx": rx}[name], master, slave)
        assert over_wire == deliver({"tx": here.tx, "rx": here.rx}[name], master, slave)
        assert len(over_wire) > 5
