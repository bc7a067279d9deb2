"""A relay that is cut keeps or ends what crosses it, in the directions that were named, and heals."""

import asyncio

import pytest

from heliograph.lab.cutting_relay import CuttingRelay, from_port, from_socket


async def echo(reader, writer):
    while piece := await reader.read(1000):
        writer.write(piece)
    writer.close()


def with_relay(act):
    async def scene():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        relay = CuttingRelay(from_port(server.sockets[0].getsockname()[1]))
        port = await relay.listen()
        try:
            async with asyncio.timeout(30):
                await act(relay, port)
        finally:
            await relay.close()
            server.close()

    asyncio.run(scene())


@pytest.mark.parametrize(("onward", "back"), [(True, True), (True, False), (False, True)])
def test_what_is_sent_into_a_silent_cut_arrives_when_it_heals_and_not_before(onward, back):
    async def act(relay, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        relay.cut(hard=False, onward=onward, back=back)
        writer.write(b"two")
        waiting = asyncio.create_task(reader.readexactly(3))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()
        relay.heal()
        assert await waiting == b"two"
        writer.close()

    with_relay(act)


def test_a_hard_cut_ends_connections_and_refuses_new_ones_until_it_heals():
    async def act(relay, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        relay.cut(hard=True)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        relay.heal()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"two")
        assert await reader.readexactly(3) == b"two"
        writer.close()

    with_relay(act)


def test_a_part_that_is_away_ends_the_connection_and_not_the_relay(tmp_path):
    async def scene():
        relay = CuttingRelay(from_socket(tmp_path / "nobody"))
        await relay.listen_unix(tmp_path / "relay")
        async with asyncio.timeout(30):
            for _ in range(2):
                reader, writer = await asyncio.open_unix_connection(tmp_path / "relay")
                assert await reader.read() == b""
                writer.close()
        await relay.close()

    asyncio.run(scene())


@pytest.mark.parametrize(("onward", "back"), [(True, True), (True, False), (False, True)])
def test_a_connection_that_a_cut_loses_stays_open_and_silent_for_good_and_new_ones_pass(onward, back):
    async def act(relay, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        relay.cut(hard=False, onward=onward, back=back, lost=True)
        fresh_reader, fresh_writer = await asyncio.open_connection("127.0.0.1", port)
        fresh_writer.write(b"new")
        waiting = asyncio.create_task(fresh_reader.readexactly(3))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()  # the cut holds for it too, while it lasts
        relay.heal()
        assert await waiting == b"new"
        writer.write(b"two")
        lost = asyncio.create_task(reader.readexactly(3))
        fresh_writer.write(b"end")
        assert await fresh_reader.readexactly(3) == b"end"
        assert not lost.done()
        lost.cancel()
        for each in (writer, fresh_writer):
            each.close()

    with_relay(act)
