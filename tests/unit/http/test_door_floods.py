"""Floods at the doors of a key manager, over real connections: what a greedy SAE and what strangers cannot do."""

import asyncio
import contextlib
import resource
import socket
import ssl
import time
from pathlib import Path

import pytest
from OpenSSL import SSL

from heliograph.doors import door, shares, sources, waiting
from heliograph.http.callers import PskCallers
from heliograph.http.skip_server import SkipServer
from heliograph.http.tls import server_tls
from heliograph.kme.boundary import Boundary
from heliograph.kme.quotas import Quota, Quotas
from heliograph.kme.skip import SkipSystems
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.malformed_wire import hello
from heliograph.openssl import AES_256_GCM_SHA384, psk_client
from heliograph.testing.clock import ManualClock
from heliograph.testing.psk_client import Refused, ask, shake_hands
from heliograph.transport.etsi004_server import Etsi004Server
from heliograph.vault.randomness import SystemRandomness

ENC = "/api/v1/keys/sae-b/enc_keys"
STATUS = "/api/v1/keys/sae-b/status"
PSK = {b"router-a": bytes(range(1, 33)), b"router-2": bytes(range(100, 132))}
ELSEWHERE = ("127.0.0.2", 0)


def stranger_tls():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


async def knock(port, tls, source=ELSEWHERE):
    """Connect as a stranger; return whether the server ended it before a byte came."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=source)
        try:
            return not await reader.read(1)
        finally:
            writer.transport.abort()
    return True


async def is_ended(reader):
    try:
        return not await reader.read(1)
    except OSError:
        return True


async def hold(port, tls, number, refused):
    """Open connections one after the other; return their writers once the server has ended ``refused`` of them."""
    found = [await asyncio.open_connection("127.0.0.1", port, ssl=tls) for _ in range(number)]
    ends = {asyncio.ensure_future(is_ended(reader)) for reader, _ in found}
    ended = set()
    async with asyncio.timeout(10):
        while len(ended) < refused:
            done, ends = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            ended |= done
    for end in ends:
        end.cancel()
    await asyncio.gather(*ends, return_exceptions=True)
    return [writer for _, writer in found]


async def until(found):
    async with asyncio.timeout(10):
        while not found():  # noqa: ASYNC110  - the door tells nobody
            await asyncio.sleep(0)


def highest_descriptor():
    return max(int(descriptor.name) for descriptor in Path("/proc/self/fd").iterdir())


def let_go(writers):
    for writer in writers:
        writer.transport.abort()


def test_one_sae_cannot_hold_all_connections_of_the_door_of_etsi_014(site, wire, monkeypatch):
    monkeypatch.setattr(shares, "OF_ONE_MAX", 3)
    greedy, modest = site.sae_tls("sae-a"), site.sae_tls("sae-2")

    async def act(kme):
        writers = await hold(kme.port, greedy, 6, 3)
        await until(lambda: kme._door.held == 3)
        other = await wire.ask(kme.port, modest, "GET", STATUS)
        let_go(writers)
        return other[0]

    assert site.run(act) == 200


def test_one_sae_cannot_hold_all_connections_of_the_door_of_etsi_004(site, monkeypatch):
    monkeypatch.setattr(shares, "OF_ONE_MAX", 3)
    greedy, modest = site.sae_tls("sae-a"), site.sae_tls("sae-2")

    async def unused(*_):
        raise AssertionError

    async def main():
        server = Etsi004Server(unused, Boundary())
        await server.start("127.0.0.1", 0, server_tls(*site.kme_files))
        try:
            many = await hold(server.port, greedy, 6, 3)
            await until(lambda: server._door.held == 3)
            one = await hold(server.port, modest, 1, 0)
            await until(lambda: server._door.held == 4)
            let_go([*many, *one])
        finally:
            await server.close()

    asyncio.run(main())


class Counted(SystemRandomness):
    """Tells how many requests for entropy were served."""

    served = 0

    def draw(self, size):
        self.served += 1
        return super().draw(size)


async def stuff(loop, raw, held, request, randomness):
    """Read no answer, and ask until one of them does not leave the server's process any more."""
    while held.get_write_buffer_size() == 0:
        before = randomness.served
        await loop.sock_sendall(raw, request())
        await until(lambda before=before: randomness.served > before)
        for _ in range(10):  # it is written before the next one is asked for: nothing is to wait unread
            await asyncio.sleep(0)


def deaf_socket(port):
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.connect(("127.0.0.1", port))
    raw.settimeout(0.0)
    return raw


def test_a_router_that_closes_and_reads_nothing_keeps_no_descriptor_past_its_share(site, monkeypatch):
    monkeypatch.setattr(door, "_LINGER_SECONDS", 0.1)

    async def main():
        randomness = Counted()
        callers = PskCallers({"router-a": "sae-a"}, Boundary(psk=frozenset({"sae-a"})))
        supply = Supply(site.keys, "kme-a", [SaePair("sae-a", "sae-b", "kme-b")], Limits(), ManualClock(200.0))
        server = SkipServer(supply, SkipSystems("kp-a", {"site-b": ("sae-b",)}), randomness, callers)
        await server.start_psk("127.0.0.1", 0, PSK.get)
        loop, raw = asyncio.get_running_loop(), deaf_socket(server.port)
        try:
            tls = psk_client(AES_256_GCM_SHA384, b"router-a", PSK[b"router-a"])
            while server._door.held == 0:
                with contextlib.suppress(SSL.WantReadError):
                    tls.connection.do_handshake()
                await loop.sock_sendall(raw, tls.give())
                if server._door.held == 0:
                    with contextlib.suppress(TimeoutError):
                        tls.take(await asyncio.wait_for(loop.sock_recv(raw, 65536), 0.2))

            def request():
                tls.connection.send(b"GET /entropy?minentropy=4096 HTTP/1.1\r\nHost: kme\r\n\r\n")
                return tls.give()

            (held,) = server._door._shares._held
            theirs = held.get_extra_info("socket")
            await stuff(loop, raw, held, request, randomness)
            raw.shutdown(socket.SHUT_WR)
            await until(lambda: server._door.held == 0)
            await until(lambda: theirs.fileno() < 0)
        finally:
            raw.close()
            await server.close()

    asyncio.run(main())


def test_one_router_cannot_hold_all_connections_of_the_door_of_preshared_keys(site, monkeypatch):
    monkeypatch.setattr(shares, "OF_ONE_MAX", 3)

    async def main():
        pairs = [SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-2", "sae-b", "kme-b")]
        callers = PskCallers({"router-a": "sae-a", "router-2": "sae-2"}, Boundary(psk=frozenset({"sae-a", "sae-2"})))
        supply = Supply(site.keys, "kme-a", pairs, Limits(), ManualClock(200.0))
        server = SkipServer(supply, SkipSystems("kp-a", {"site-b": ("sae-b",)}), None, callers)
        await server.start_psk("127.0.0.1", 0, PSK.get)
        try:
            writers = []
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writers.append(writer)
                await shake_hands(psk_client(AES_256_GCM_SHA384, b"router-a", PSK[b"router-a"]), reader, writer)
            await until(lambda: server._door.held == 3)
            with pytest.raises(Refused):
                await ask(server.port, b"router-a", PSK[b"router-a"], "/capabilities")
            status, _ = await ask(server.port, b"router-2", PSK[b"router-2"], "/capabilities")
            let_go(writers)
            return status
        finally:
            await server.close()

    assert asyncio.run(main()) == 200


def test_a_greedy_sae_is_refused_no_faster_than_the_pace_while_another_is_served_at_once(site, wire):
    greedy, modest = site.sae_tls("sae-a"), site.sae_tls("sae-2")
    quotas = Quotas(ManualClock(0.0), requests=Quota(10, 1.0))
    request = f"GET {ENC} HTTP/1.1\r\nHost: kme\r\n\r\n".encode()
    odd = request.replace(b"Host", b"X-Other: 1\r\nHost")  # goes by aiohttp, not by the short way
    site.add_owned(20)

    async def act(kme):
        seen = []

        async def hammer(text):
            reader, writer = await asyncio.open_connection("127.0.0.1", kme.port, ssl=greedy)
            try:
                while True:
                    writer.write(text)
                    head = await reader.readuntil(b"\r\n\r\n")
                    seen.append((int(head.split()[1]), b"Retry-After: 1" in head))
                    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]))
            finally:
                writer.transport.abort()

        tasks = [asyncio.ensure_future(hammer(text)) for text in [request, odd] * 8]
        began = time.monotonic()
        await until(lambda: len(seen) >= 40)  # it has had its quota, and its first refusals
        others = [(await wire.ask(kme.port, modest, "GET", STATUS))[0] for _ in range(5)]
        while time.monotonic() - began < 1.5:
            await asyncio.wait(tasks, timeout=0.1)
        elapsed = time.monotonic() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return seen, others, elapsed

    seen, others, elapsed = site.run(act, quotas=quotas)
    refused = [told for status, told in seen if status == 503]
    assert others == [200] * 5
    assert len(seen) - len(refused) == 10
    assert all(refused)
    assert len(refused) <= 8 + 50 * elapsed + 16


def test_requests_for_what_is_not_there_are_counted_like_others(site, wire):
    tls = site.sae_tls("sae-a")
    quotas = Quotas(ManualClock(0.0), requests=Quota(2, 1.0))

    async def act(kme):
        return [(await wire.ask(kme.port, tls, "GET", "/nothing"))[0] for _ in range(3)]

    assert site.run(act, quotas=quotas) == [404, 404, 503]


def test_strangers_take_no_handshake_from_an_sae_that_came_lately(site, wire, monkeypatch):
    monkeypatch.setattr(sources, "STRANGERS", Quota(3, 1e-6))  # after three there is none for strangers any more
    tls = site.sae_tls("sae-a")

    async def act(kme):
        before = await wire.ask(kme.port, tls, "GET", STATUS)
        strangers = [asyncio.ensure_future(knock(kme.port, stranger_tls())) for _ in range(40)]
        await until(lambda: kme._door.waiting >= 37)
        after = [(await wire.ask(kme.port, tls, "GET", STATUS))[0] for _ in range(3)]
        waiting = kme._door.waiting
        for one in strangers:
            one.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)
        return before[0], after, waiting

    assert site.run(act) == (200, [200] * 3, 37)


def test_halves_of_a_hello_begin_no_handshake_and_are_ended_in_time(site, wire, monkeypatch):
    tls, half = site.sae_tls("sae-a"), hello()[:100]

    async def act(kme):
        halves = [await asyncio.open_connection("127.0.0.1", kme.port) for _ in range(80)]
        for number, (_, writer) in enumerate(halves):
            writer.write(half[: 1 + number])
        served = await wire.ask(kme.port, tls, "GET", STATUS)
        under_way = kme._door._waiting.all_under_way()
        waiting_before = kme._door.waiting
        monkeypatch.setattr(waiting, "HANDSHAKE_SECONDS", 0.0)
        ended = [await asyncio.wait_for(is_ended(reader), 10) for reader, _ in halves]
        return served[0], under_way, waiting_before, all(ended), kme._door.waiting

    assert site.run(act) == (200, [], 80, True, 0)


def test_a_hello_that_comes_byte_by_byte_is_heard_whole(site):
    tls = site.sae_tls("sae-a")

    async def act(kme):
        reader, writer = await asyncio.open_connection("127.0.0.1", kme.port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        mine = tls.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with contextlib.suppress(ssl.SSLWantReadError):
            mine.do_handshake()
        for byte in outgoing.read():
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        while True:
            incoming.write(await asyncio.wait_for(reader.read(65536), 10))
            try:
                mine.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
        mine.write(f"GET {STATUS} HTTP/1.1\r\nHost: kme\r\n\r\n".encode())
        writer.write(outgoing.read())
        incoming.write(await asyncio.wait_for(reader.read(65536), 10))
        answer = mine.read(12)
        writer.close()
        return answer

    assert site.run(act) == b"HTTP/1.1 200"


def test_strangers_are_ended_when_the_door_closes(site, monkeypatch):
    monkeypatch.setattr(sources, "STRANGERS", Quota(1, 1e-6))

    async def act(kme):
        tasks = [asyncio.ensure_future(knock(kme.port, stranger_tls())) for _ in range(8)]
        silent, writer = await asyncio.open_connection("127.0.0.1", kme.port)
        await until(lambda: kme._door.waiting >= 8)
        await kme.close()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, is_ended(silent)), 10)
        writer.close()
        return ended

    assert site.run(act) == [True] * 9


def test_without_descriptors_silent_strangers_make_way(site, wire, monkeypatch):
    monkeypatch.setattr(waiting, "HANDSHAKE_SECONDS", 3600.0)  # not because their time is over
    tls = site.sae_tls("sae-a")

    async def act(kme):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        silent = [await asyncio.open_connection("127.0.0.1", kme.port) for _ in range(20)]
        await until(lambda: kme._door.waiting >= 20)
        highest = highest_descriptor()
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        try:
            ends = [asyncio.ensure_future(is_ended(reader)) for reader, _ in silent]
            late = []
            with contextlib.suppress(OSError):  # this process is the one that runs out
                while True:
                    late.append(await asyncio.open_connection("127.0.0.1", kme.port))
            await asyncio.wait(ends, timeout=10)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        let_go([writer for _, writer in [*silent, *late]])
        return all(end.done() and end.result() for end in ends), (await wire.ask(kme.port, tls, "GET", STATUS))[0]

    assert site.run(act) == (True, 200)
