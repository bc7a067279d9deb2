"""The recorder between the sites changes nothing, keeps everything, and leaves nothing open."""

import asyncio

import pytest

from heliograph.errors import ConfigurationError
from heliograph.lab.ports import free_ports
from heliograph.lab.wiretap import Wiretap

HOST = "127.0.0.1"


async def tapped(tmp_path, act, serve):
    listen, target = free_ports(2)
    server = await asyncio.start_server(serve, HOST, target)
    tap = Wiretap("line", tmp_path)
    await tap.start((HOST, listen), (HOST, target))
    try:
        return await act(listen)
    finally:
        await tap.close()
        server.close()


def recorded(tmp_path):
    return tuple((tmp_path / f"line.{end}.bin").read_bytes() for end in ("dialler", "listener"))


async def upper(reader, writer):
    while data := await reader.read(1000):
        writer.write(data.upper())
    writer.write(b"!")  # after the dialler's half is closed
    writer.close()


def test_both_directions_pass_unchanged_and_are_kept(tmp_path):
    async def act(port):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"abc" * 10_000)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    assert asyncio.run(tapped(tmp_path, act, upper)) == b"ABC" * 10_000 + b"!"
    assert recorded(tmp_path) == (b"abc" * 10_000, b"ABC" * 10_000 + b"!")


def test_the_end_of_either_side_reaches_the_other(tmp_path):
    async def leave(_reader, writer):
        writer.close()

    async def act(port):
        reader, writer = await asyncio.open_connection(HOST, port)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()

    asyncio.run(tapped(tmp_path, act, leave))


def test_nobody_listening_behind_it_ends_the_connection(tmp_path):
    async def scene():
        listen, target = free_ports(2)
        tap = Wiretap("line", tmp_path)
        await tap.start((HOST, listen), (HOST, target))
        reader, writer = await asyncio.open_connection(HOST, listen)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
        await tap.close()

    asyncio.run(scene())


def test_closing_it_cuts_open_connections(tmp_path):
    async def scene():
        listen, target = free_ports(2)
        server = await asyncio.start_server(upper, HOST, target)
        tap = Wiretap("line", tmp_path)
        await tap.start((HOST, listen), (HOST, target))
        reader, writer = await asyncio.open_connection(HOST, listen)
        writer.write(b"abc")
        assert await reader.readexactly(3) == b"ABC"
        await tap.close()
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
        server.close()
        assert tap.bytes_seen == 6

    asyncio.run(scene())
    assert recorded(tmp_path)[0] == b"abc"


def test_a_port_in_use_is_named(tmp_path):
    async def scene():
        (port,) = free_ports(1)
        server = await asyncio.start_server(upper, HOST, port)
        with pytest.raises(ConfigurationError, match=f"recorder line: cannot listen on .*{port}"):
            await Wiretap("line", tmp_path).start((HOST, port), (HOST, 1))
        server.close()

    asyncio.run(scene())
