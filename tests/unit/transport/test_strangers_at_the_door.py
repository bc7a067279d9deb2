"""Between key managers and between nodes: whoever holds connections open without proof keeps no peer out."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from heliograph.errors import RemoteProtocolError
from heliograph.lab.ports import free_ports
from heliograph.transport import one_time_channel
from heliograph.transport.one_time_channel import PROVED_MAX, STRANGERS_MAX, OneTimeServer

PEER, FLOOD = b"a message with a good tag", 5 * STRANGERS_MAX


class Door:
    """A server whose peers send ``PEER``; their answers wait until ``open`` is set."""

    def __init__(self, known=()):
        self.open, self.proved = asyncio.Event(), 0
        self.server = OneTimeServer(self.answer, known)
        self.held = []

    async def answer(self, data, proved):
        if data != PEER:
            raise RemoteProtocolError("not a peer")
        proved()
        self.proved += 1
        await self.open.wait()
        return b"yes"

    async def until(self, holds):
        for _ in range(1_000_000):
            if holds():
                return
            await asyncio.sleep(0)
        raise AssertionError("it never came to that")

    async def connect(self, host):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host, 0))
        self.held.append(writer)
        return reader, writer

    async def ask(self, connection):
        reader, writer = connection
        writer.write(len(PEER).to_bytes(4, "big") + PEER)
        with suppress(OSError, asyncio.IncompleteReadError):
            return await reader.readexactly(7)
        return b""

    async def flood(self, hosts, say=b""):
        for number in range(FLOOD):
            with suppress(OSError):
                _, writer = await self.connect(hosts[number % len(hosts)])
                writer.write(say)


def run(act, known=()):
    async def whole():
        door = Door(known)
        (door.port,) = free_ports(1)
        await door.server.start("127.0.0.1", door.port)
        try:
            await asyncio.wait_for(act(door), 20)
        finally:
            door.open.set()
            await door.server.close()
            for writer in door.held:
                writer.transport.abort()

    asyncio.run(whole())


@pytest.mark.parametrize("say", [b"", b"\0\0\1", (60_000).to_bytes(4, "big") + b"x" * 2000])
def test_a_peer_gets_in_while_strangers_at_one_address_hold_every_place(say):
    async def act(door):
        door.open.set()
        peer = await door.connect("127.0.0.7")  # it dialled first, and takes its keys while the flood comes
        await door.flood(["127.0.0.1"], say)
        assert (await door.ask(peer))[4:] == b"yes"
        assert (await door.ask(await door.connect("127.0.0.7")))[4:] == b"yes"

    run(act)


@pytest.mark.parametrize("how", ["127.0.0.7", "::ffff:127.0.0.7", "::FFFF:7f00:7", "proved before"])
def test_strangers_at_many_addresses_do_not_push_out_a_peer_whose_address_is_known(how):
    crowd = [f"127.0.1.{n}" for n in range(1, FLOOD + 1)]

    async def act(door):
        door.open.set()
        if how == "proved before":
            assert (await door.ask(await door.connect("127.0.0.7")))[4:] == b"yes"
        peer = await door.connect("127.0.0.7")
        await door.flood(crowd)
        assert (await door.ask(peer))[4:] == b"yes"

    run(act, {how} if how != "proved before" else ())


def test_a_peer_that_is_being_answered_makes_way_for_nobody():
    async def act(door):
        asking = [asyncio.create_task(door.ask(await door.connect("127.0.0.7"))) for _ in range(STRANGERS_MAX + 4)]
        await door.until(lambda: door.proved == len(asking))
        await door.flood(["127.0.0.7", "127.0.0.1"])
        door.open.set()
        assert {answer[4:] for answer in await asyncio.gather(*asking)} == {b"yes"}

    run(act)


def test_requests_under_way_have_a_bound_of_their_own():
    async def act(door):
        asking = [asyncio.create_task(door.ask(await door.connect("127.0.0.7"))) for _ in range(PROVED_MAX + 3)]
        await door.until(lambda: door.proved == PROVED_MAX and door.server.refused == 3)
        door.open.set()
        assert sum(answer[4:] == b"yes" for answer in await asyncio.gather(*asking)) == PROVED_MAX

    run(act)


def test_one_that_says_nothing_is_closed_after_its_short_time(monkeypatch):
    monkeypatch.setattr(one_time_channel, "SILENT_S", 0.05)

    async def act(door):
        reader, _ = await door.connect("127.0.0.1")
        assert await reader.read() == b""
        assert door.server.refused == 1

    run(act)


def test_a_door_that_closes_answers_nobody_any_more_and_leaves_no_traceback_in_the_log():
    """A message that is answered from a store that is closed already would be an error of the node's own."""

    async def act(door):
        told, hung = [], asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what["message"]))
        answer = door.open.wait

        async def waiting():
            try:
                return await answer()
            except asyncio.CancelledError:
                hung.set()
                raise

        door.open.wait = waiting
        silent, _ = await door.connect("127.0.0.7")
        asking = asyncio.create_task(door.ask(await door.connect("127.0.0.8")))
        await door.until(lambda: door.proved)
        await door.server.close()
        assert hung.is_set()
        assert await asking == b""
        with suppress(OSError):
            assert await silent.read() == b""
        await asyncio.sleep(0)
        assert not told

    run(act)
