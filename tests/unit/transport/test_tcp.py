"""Frames over TCP: whole and in order, or TransportClosed; an oversize one is refused before it is read."""

import asyncio
import os
import socket

import pytest

from heliograph.errors import ConfigurationError, RemoteProtocolError, TransportClosed
from heliograph.lab.ports import free_ports
from heliograph.transport.tcp import TcpTransport, dial, listen

HOST = "127.0.0.1"


def joined(act):
    """Give both ends of one connection to a coroutine function."""

    async def scene():
        (port,) = free_ports(1)
        accepted = asyncio.get_running_loop().create_future()

        async def accept(transport):
            accepted.set_result(transport)

        server = await listen(HOST, port, accept)
        here = await dial(HOST, port)
        there = await accepted
        try:
            async with asyncio.timeout(20):
                return await act(here, there)
        finally:
            await here.close()
            await there.close()
            server.close()

    return asyncio.run(scene())


@pytest.mark.parametrize("size", [0, 1, 4, 65_535, 65_536, 3_000_000])
def test_a_frame_arrives_whole(size):
    frame = os.urandom(size)

    async def act(here, there):
        sending = asyncio.create_task(here.send(frame))
        assert await there.receive() == frame
        await sending

    joined(act)


def test_frames_arrive_in_order():
    async def act(here, there):
        frames = [os.urandom(n * 7 % 300) for n in range(500)]
        for frame in frames:
            await here.send(frame)
        assert [await there.receive() for _ in frames] == frames

    joined(act)


@pytest.mark.parametrize(("limit", "fits"), [(10, True), (9, False)])
def test_an_oversize_frame_is_refused_by_its_length_alone(limit, fits):
    async def act(here, there):
        await here.send(bytes(10))
        if fits:
            assert await there.receive(limit) == bytes(10)
        else:
            with pytest.raises(RemoteProtocolError, match="10 bytes; at most 9"):
                await there.receive(limit)

    joined(act)


def test_the_end_of_the_peer_is_told_to_whoever_waits():
    async def act(here, there):
        waiting = asyncio.create_task(there.receive())
        await asyncio.sleep(0)
        await here.close()
        with pytest.raises(TransportClosed):
            await waiting

    joined(act)


def test_half_a_frame_is_no_frame():
    async def act(here, there):
        here._writer.write((100).to_bytes(4, "big") + bytes(99))
        await here.close()
        with pytest.raises(TransportClosed):
            await there.receive()

    joined(act)


def test_abort_frees_a_sender_whose_peer_does_not_read():
    async def act(here, _there):
        sending = asyncio.create_task(here.send(bytes(60 << 20)))
        done, _ = await asyncio.wait({sending}, timeout=0.3)
        assert not done
        here.abort()
        with pytest.raises(TransportClosed):
            await sending

    joined(act)


def test_closing_does_not_wait_for_a_peer_that_does_not_read():
    async def act(here, _there):
        here._writer.write(bytes(60 << 20))
        began = asyncio.get_running_loop().time()
        await here.close()
        assert asyncio.get_running_loop().time() - began < 3.0

    joined(act)


def test_sending_on_a_closed_connection_is_told():
    async def act(here, _there):
        await here.close()
        with pytest.raises(TransportClosed):
            await here.send(b"x")

    joined(act)


def test_a_peer_that_vanishes_is_noticed_by_the_system():
    async def act(here, there):
        for end in (here, there):
            raw = end._writer.get_extra_info("socket")
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000

    joined(act)


def test_nobody_listening_is_told_in_one_line():
    (port,) = free_ports(1)
    with pytest.raises(TransportClosed, match=f"{HOST}:{port} does not answer") as refusal:
        asyncio.run(dial(HOST, port))
    assert "\n" not in str(refusal.value)


def test_an_address_in_use_is_told_in_one_line():
    async def scene():
        (port,) = free_ports(1)

        async def accept(_transport: TcpTransport):
            pass

        server = await listen(HOST, port, accept)
        with pytest.raises(ConfigurationError, match=f"cannot listen on {HOST}:{port}"):
            await listen(HOST, port, accept)
        server.close()

    asyncio.run(scene())
