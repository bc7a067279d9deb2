"""The short way for plain requests: the same answers as aiohttp's, and nothing ambiguous on it."""

import asyncio
import json
import threading

import pytest

from heliograph.http import plain_door
from heliograph.http.plain_door import read_plain

ENC = "/api/v1/keys/sae-b/enc_keys"
BODY = b'{"number":2}'
HEAD = f"POST {ENC} HTTP/1.1\r\nHost: kme\r\nContent-Length: {len(BODY)}\r\n".encode()
PLAIN = HEAD + b"\r\n" + BODY


def with_header(line):
    return HEAD + line + b"\r\n\r\n" + BODY


def test_a_plain_request_is_read_whole():
    assert read_plain(PLAIN) == ("POST", ENC, "", BODY)
    query = f"GET {ENC}?number=2&size=256 HTTP/1.1\r\nhost:kme\r\nAccept: */*\r\nConnection: Keep-Alive\r\n\r\n"
    assert read_plain(query.encode()) == ("GET", ENC, "number=2&size=256", b"")
    slash = b"GET /api/v1/keys/sae%2Fwith%20slash/status HTTP/1.1\r\nHost: kme\r\n\r\n"
    assert read_plain(slash) == ("GET", "/api/v1/keys/sae%2Fwith%20slash/status", "", b"")


AMBIGUOUS = {
    "two lengths": with_header(b"Content-Length: 3"),
    "a transfer coding": with_header(b"Transfer-Encoding: chunked"),
    "an expectation": with_header(b"Expect: 100-continue"),
    "an upgrade": with_header(b"Upgrade: h2c"),
    "a connection to be closed": with_header(b"Connection: close"),
    "a header that is not known": with_header(b"X-Forwarded-For: 10.0.0.1"),
    "a folded header": with_header(b"Accept: a\r\n b"),
    "a space before the colon": with_header(b"Accept : a"),
    "an empty header": with_header(b"Accept:"),
    "a bare line feed": PLAIN.replace(b"Host: kme\r\n", b"Host: kme\n"),
    "a control character": with_header(b"Accept: a\x00b"),
    "a byte above ASCII": with_header(b"Accept: \xff"),
    "no host": PLAIN.replace(b"Host: kme\r\n", b""),
    "two hosts": with_header(b"Host: other"),
    "no length": PLAIN.replace(b"Content-Length: 12\r\n", b""),
    "a signed length": PLAIN.replace(b": 12", b": +12"),
    "a length with a zero in front": PLAIN.replace(b": 12", b": 012"),
    "a length that is too small": PLAIN.replace(b": 12", b": 11"),
    "a length that is too large": PLAIN.replace(b": 12", b": 13"),
    "a large body": b"POST / HTTP/1.1\r\nHost: k\r\nContent-Length: 20000\r\n\r\n" + bytes(20000),
    "two requests in one piece": PLAIN + PLAIN,
    "another version": PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "another verb": PLAIN.replace(b"POST", b"PUT"),
    "an absolute target": PLAIN.replace(b"POST /api", b"POST https://kme/api"),
    "two slashes in front": PLAIN.replace(b"POST /api", b"POST //api"),
    "a fragment": PLAIN.replace(b"enc_keys ", b"enc_keys#x "),
    "two spaces": PLAIN.replace(b"POST /", b"POST  /"),
    "an empty line in front": b"\r\n" + PLAIN,
    "half a head": PLAIN[:30],
    "a long head": with_header(b"Accept: " + b"a" * 4000),
    "nothing": b"",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_not_exactly_plain_is_left_to_aiohttp(case):
    assert read_plain(AMBIGUOUS[case]) is None


REQUESTS = [
    ("GET", "/api/v1/keys/sae-b/status", None),
    ("GET", f"{ENC}?number=1", None),
    ("POST", ENC, b'{"number":1}'),
    ("POST", ENC, b""),
    ("POST", ENC, b'{"number":0}'),
    ("POST", ENC, b"{"),
    ("GET", f"{ENC}?number=x", None),
    ("GET", "/api/v1/keys/sae-x/enc_keys", None),
    ("GET", "/api/v1/keys/%FF/enc_keys", None),
    ("GET", "/nowhere", None),
    ("POST", "/api/v1/keys/sae-b/status", b""),
    ("POST", "/api/v1/keys/sae-b/dec_keys", b'{"key_IDs":[{"key_ID":"00000000-0000-4000-8000-000000000000"}]}'),
]


def test_both_ways_give_the_same_answers(site, wire):
    site.add_owned(20)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        answers = [await wire.ask(kme.port, tls, *request) for request in REQUESTS]
        # aiohttp's turn: a header that the short way does not know.
        return answers, [await wire.ask(kme.port, tls, *request, headers="X-Other: 1\r\n") for request in REQUESTS]

    for request, short, long in zip(REQUESTS, *site.run(act), strict=True):
        assert short[0] == long[0], request
        assert short[1].keys() == long[1].keys(), request
        for name in short[1].keys() - {"date", "content-length"}:
            assert short[1][name] == long[1][name], request
        if short[0] == 200 and "keys" in short[2]:
            assert {key["key_ID"] for key in short[2]["keys"]}.isdisjoint(key["key_ID"] for key in long[2]["keys"])
        elif "stored_key_count" not in (short[2] or {}):
            assert short[2] == long[2], request


async def connected(kme, tls):
    return await asyncio.open_connection("127.0.0.1", kme.port, ssl=tls, server_hostname="127.0.0.1")


async def answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


@pytest.mark.parametrize("pieces", ["one piece", "three pieces", "cut in the middle", "head and body apart"])
def test_requests_that_come_together_or_in_parts_are_each_answered_once_in_order(site, pieces):
    rows = site.add_owned(6)
    tls = site.sae_tls("sae-a")
    cuts = {
        "one piece": [PLAIN * 3],
        "three pieces": [PLAIN] * 3,
        "cut in the middle": [PLAIN + PLAIN[:40], PLAIN[40:] + PLAIN],
        "head and body apart": [HEAD + b"\r\n", BODY, PLAIN, PLAIN],
    }[pieces]

    async def act(kme):
        reader, writer = await connected(kme, tls)
        for piece in cuts:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        found = [await answer(reader) for _ in range(3)]
        writer.transport.abort()
        return found

    found = site.run(act)
    assert [status for status, _ in found] == [200] * 3
    assert [key["key_ID"] for _, keys in found for key in keys["keys"]] == [row.key_id for row in rows]


class SlowKeys:
    """The real store, held up until it is told to go on."""

    def __init__(self, keys):
        self.keys, self.asked, self.go = keys, threading.Semaphore(0), threading.Event()

    def deliver_to_master(self, *arguments, **more):
        self.asked.release()
        assert self.go.wait(30)
        return self.keys.deliver_to_master(*arguments, **more)


def test_a_server_that_closes_still_answers_what_it_has_begun(site):
    (row,) = site.add_owned(1)
    store, site.keys = site.keys, SlowKeys(site.keys)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        reader, writer = await connected(kme, tls)
        idle, _ = await connected(kme, tls)
        writer.write(PLAIN.replace(b'"number":2', b'"number":1'))
        assert await asyncio.to_thread(site.keys.asked.acquire, timeout=30)
        closing = asyncio.create_task(kme.close())
        assert await idle.read() == b""  # who waits for nothing is let go at once
        site.keys.go.set()
        found = await answer(reader)
        assert await reader.read() == b""
        await closing
        return found

    status, found = site.run(act)
    assert status == 200
    assert [key["key_ID"] for key in found["keys"]] == [row.key_id]
    assert store.delivered_counts() == (1, 0)


def test_a_connection_without_a_request_is_closed_after_its_time(site, monkeypatch):
    monkeypatch.setattr("heliograph.http.server.KEEPALIVE_SECONDS", 0.0)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        reader, _ = await connected(kme, tls)
        async with asyncio.timeout(30):
            return await reader.read()

    assert site.run(act) == b""


def test_heads_that_are_remembered_are_bounded_in_number_and_size():
    assert plain_door._read_head.cache_info().maxsize * plain_door._HEAD_MAX <= 1 << 20
