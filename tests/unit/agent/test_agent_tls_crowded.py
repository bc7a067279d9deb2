"""TLS under preshared keys where it is crowded: at the cap, and behind strangers who hold connections open."""

import asyncio
import contextlib
import random
import socket

from tunnel_pair import RawRelay, Sites, until


def tls_sites(**settings) -> Sites:
    return Sites(cipher="tls-psk", relay=RawRelay(), **settings)


async def answered(reader, writer) -> bytes:
    writer.write_eof()
    async with asyncio.timeout(20):
        answer = await reader.read(-1)
    writer.close()
    return answer


def test_connections_at_the_cap_move_at_a_rotation_and_only_new_ones_are_turned_away():
    async def scenario():
        payload = random.Random(1).randbytes(1 << 20)
        async with tls_sites(rekey_bytes=1 << 18, forwarder_changes={"max_connections": 3}) as pair:
            await pair.settled()
            held = [await pair.dial() for _ in range(3)]
            for _, writer in held:
                writer.write(b"begin")
            await until(lambda: pair.b.status().live_connections == 3 and len(pair.host.received) == 3)
            with contextlib.suppress(OSError):
                reader, writer = await pair.dial()
                assert await reader.read(1) == b""  # one too many
            before = pair.a.status().rekeys
            for reader, writer in held:
                writer.write(payload)
                assert await answered(reader, writer) == b"thank you"
            assert pair.a.status().rekeys >= before + 3
            assert sorted(map(bytes, pair.host.received)) == [b"begin" + payload] * 3
            # The one too many was cut, and nothing else.
            assert pair.b.status().cut_connections == 0

    asyncio.run(scenario())


def test_strangers_who_hold_connections_open_end_no_connection_at_a_rotation():
    """They come faster than anybody can be answered, and each pushes out the oldest of them."""

    async def flood(address, stop):
        with contextlib.ExitStack() as closing:
            held = []
            while not stop.is_set():
                for _ in range(2):
                    one = closing.enter_context(socket.socket())
                    one.settimeout(0)
                    one.bind(("127.0.0.2", 0))
                    with contextlib.suppress(BlockingIOError):
                        one.connect(address)
                    held.append(one)
                while len(held) > 400:
                    held.pop(0).close()
                await asyncio.sleep(0)

    async def scenario():
        payload = random.Random(2).randbytes(150_000)
        async with tls_sites(rekey_bytes=1 << 16, forwarder_changes={"max_unauthenticated": 8}) as pair:
            await pair.settled()
            held = [await pair.dial() for _ in range(2)]
            for _, writer in held:
                writer.write(b"begin")
            await until(lambda: len(pair.host.received) == 2)
            stop = asyncio.Event()
            strangers = asyncio.create_task(flood(tuple(pair.b.forwarder.outer_address), stop))
            await until(lambda: pair.b.status().turned_away > 50)
            before = pair.a.status().rekeys
            try:
                for reader, writer in held:
                    writer.write(payload)
                    assert await answered(reader, writer) == b"thank you"
            finally:
                stop.set()
                await strangers
            assert pair.a.status().rekeys >= before + 3
            assert sorted(map(bytes, pair.host.received)) == [b"begin" + payload] * 2
            assert pair.a.status().cut_connections == pair.b.status().cut_connections == 0

    asyncio.run(scenario())


def test_data_that_does_not_fit_into_a_small_generation_never_waits_for_the_clock():
    """Two connections share a generation of 64 KiB; the one that finds it half full asked for no other, and waited."""

    async def scenario():
        payload = random.Random(3).randbytes(150_000)
        async with tls_sites(rekey_bytes=1 << 16) as pair:
            await pair.settled()
            answers = await asyncio.gather(*(pair.exchange(payload) for _ in range(3)))
            assert answers == [b"thank you"] * 3

    asyncio.run(scenario())
