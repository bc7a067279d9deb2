"""Whoever reaches the classical port can neither stop the link nor make it spend a pad or a slot."""

import asyncio
import contextlib
import os
import random
from dataclasses import replace

import msgspec
import pytest
from fault_rehearsal import SITES, Store, blocks, check_stores, direct_ports, new_block, small_blocks, until

from heliograph.lab.rehearsal import Ports
from heliograph.lab.wiretap import Wiretap
from heliograph.protocol.hello import HELLO_BYTES_MAX, Hello, HelloConfirm

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"


def framed(data):
    return len(data).to_bytes(4, "big") + data


def hello(nonce=None, site="site-a", link="a-b", marks=(0, 0, 0, 0, 0)):
    said = Hello(1, link, site, 0, nonce or os.urandom(32), marks, b"", os.urandom(16), b"", b"", b"", b"")
    return msgspec.msgpack.encode(said)


async def talk(port, data, *, read=False, then=b""):
    """Connect, say it, perhaps hear an answer and say more, and leave. Being cut off is fine."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(data)
            await writer.drain()
            if read:
                size = int.from_bytes(await reader.readexactly(4), "big")
                await reader.readexactly(size)
                writer.write(then)
                await writer.drain()
                await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def hold(port):
    """Keep a connection open that says nothing, and open the next one when it is cut."""
    while True:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            await reader.read()
        finally:
            writer.close()
        await asyncio.sleep(0.2)


def junk(chance):
    """One of the things a stranger might send."""
    return chance.choice(
        [
            chance.randbytes(chance.randrange(1, 3000)),
            framed(chance.randbytes(chance.randrange(0, HELLO_BYTES_MAX))),
            framed(hello())[: chance.randrange(1, 60)],  # half a hello
            (HELLO_BYTES_MAX + 1).to_bytes(4, "big") + bytes(100),
            b"\xff\xff\xff\xff" + bytes(100),
            framed(hello(site="site-b")),
            framed(hello(link="c-d")),
            framed(hello(marks=(2**47, 2**47, 2**47, 2**47, 0))),
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
        ]
    )


def test_a_thousand_forged_hellos_open_no_epoch_and_burn_no_slot():
    async def scene():
        rehearsal = small_blocks()
        port = rehearsal.ports.classical
        books = {name: (rehearsal.sites[name].parent / "psk.book") for name in SITES}
        before = {name: path.read_bytes() for name, path in books.items()}
        try:
            await rehearsal.start("fibre")
            await rehearsal.start("site_b")
            forged = framed(msgspec.msgpack.encode(HelloConfirm(bytes(32), b"")))
            for _ in range(20):
                await asyncio.gather(*(talk(port, framed(hello()), read=True, then=forged) for _ in range(50)))
            status = await rehearsal.status("site_b")
            assert (status.link.epoch, status.link.bits_spent, status.link.pad_sets) == (0, 0, 0)
            assert {name: path.read_bytes() for name, path in books.items()} == before
            assert len((rehearsal.directory / "site_b.log").read_bytes()) < 20_000  # no flood of lines either
            # Nor do they keep the real peer out.
            await rehearsal.start("site_a")
            await new_block(rehearsal)
            assert (await rehearsal.status("site_b")).link.epoch == 1
        finally:
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(scene())


def test_junk_and_idle_connections_do_not_disturb_a_running_link():
    async def scene():
        chance = random.Random(7)
        rehearsal = small_blocks()
        port = rehearsal.ports.classical
        idle = []
        try:
            await rehearsal.start_all()
            await new_block(rehearsal)
            idle = [await asyncio.open_connection(HOST, port) for _ in range(100)]
            made = await blocks(rehearsal)
            for _ in range(10):
                await asyncio.gather(*(talk(port, junk(chance)) for _ in range(20)))
                status = await rehearsal.status("site_b")
                assert status.link.state == "running"
                assert status.link.epoch == 1

            async def further():
                return await blocks(rehearsal) >= made + 3

            await until(further)
            for name in SITES:
                link = (await rehearsal.status(name)).link
                assert (link.blocks_discarded, link.junk_frames, link.refused_frames) == (0, 0, 0)
            # While strangers hold every place open, a site that starts again still gets through.
            await rehearsal.stop("site_a")
            holders = [asyncio.create_task(hold(port)) for _ in range(16)]
            await rehearsal.start("site_a")
            await new_block(rehearsal, 15)
            for holder in holders:
                holder.cancel()
            await asyncio.gather(*holders, return_exceptions=True)
            logs = (rehearsal.directory / "site_b.log").read_text()
            assert "Traceback" not in logs
            assert "internal error" not in logs
            await rehearsal.stop_all()
            check_stores(*(Store.of(rehearsal, name) for name in SITES))
        finally:
            for _, writer in idle:
                writer.close()
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(scene())


def test_a_recorded_session_cannot_be_played_again():
    async def scene():
        ports = replace(direct_ports(), classical_tap=Ports.free().classical_tap)
        rehearsal = small_blocks(ports=ports)
        tap = Wiretap("classical", rehearsal.directory)
        await tap.start((HOST, ports.classical_tap), (HOST, ports.classical))
        try:
            await rehearsal.start_all()
            await new_block(rehearsal)
            await new_block(rehearsal)
            await rehearsal.stop("site_a")
            await tap.close()
            recorded = tap.files[0].read_bytes()
            assert len(recorded) > 50_000
            before = (await rehearsal.status("site_b")).link
            for _ in range(5):
                size = int.from_bytes(recorded[:4], "big") + 4
                await talk(ports.classical, recorded[:size], read=True, then=recorded[size:])
                await talk(ports.classical, recorded)
            after = (await rehearsal.status("site_b")).link
            assert (after.epoch, after.blocks, after.bits_spent, after.pad_sets, after.eps_total) == (
                before.epoch, before.blocks, before.bits_spent, before.pad_sets, before.eps_total
            )  # fmt: skip
            assert after.state != "running"
        finally:
            await tap.close()
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(scene())


class Injector:
    """On the line between the sites: relays whole frames and adds its own between them."""

    def __init__(self, chance):
        self.chance = chance
        self.added = 0
        self.on = False
        self._server = None
        self._tasks = set()

    async def start(self, listen, target):
        async def relay(reader, writer):
            far_reader, far_writer = await asyncio.open_connection(HOST, target)
            both = [asyncio.create_task(self._frames(*ends)) for ends in ((reader, far_writer), (far_reader, writer))]
            self._tasks.update(both)
            await asyncio.gather(*both, return_exceptions=True)
            for end in (writer, far_writer):
                end.close()

        self._server = await asyncio.start_server(relay, HOST, listen)

    async def _frames(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = await reader.readexactly(4)
                data = await reader.readexactly(int.from_bytes(size, "big"))
                if self.on:
                    forged = bytearray(data)
                    forged[self.chance.randrange(len(forged))] ^= 1 << self.chance.randrange(8)
                    for extra in (bytes(forged), self.chance.randbytes(self.chance.randrange(200)), b""):
                        writer.write(framed(extra))
                        self.added += 1
                writer.write(size + data)
                await writer.drain()
        writer.close()

    async def close(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def test_frames_added_on_the_line_are_dropped_at_no_cost():
    async def scene():
        ports = replace(direct_ports(), classical_tap=Ports.free().classical_tap)
        rehearsal = small_blocks(ports=ports)
        injector = Injector(random.Random(3))
        await injector.start(ports.classical_tap, ports.classical)
        try:
            await rehearsal.start_all()
            await new_block(rehearsal)
            injector.on = True
            made = await blocks(rehearsal)

            async def further():
                return await blocks(rehearsal) >= made + 4

            await until(further)
            injector.on = False
            seen = 0
            for name in SITES:
                link = (await rehearsal.status(name)).link
                assert link.state == "running"
                assert link.blocks_discarded == 0
                assert link.refused_frames == 0
                seen += link.junk_frames
            assert injector.added - 20 <= seen <= injector.added
            assert seen > 50
        finally:
            await rehearsal.stop_all()
            await injector.close()
            rehearsal.remove()

    asyncio.run(scene())
