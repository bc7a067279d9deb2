"""``heliograph bench kme``: requests and keys a second over mutual TLS, every delivery durable, beside their limits.

The clients are written in Python too and take as much time as the server. So each has a processor of its own where
there are two, and beside what came in a second there is what came for each second of the server's own processor time:
the first depends on who else uses the machine, the second hardly.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from heliograph.http.tls import client_tls
from heliograph.lab.bench_rows import row
from heliograph.lab.kme_under_load import BATCH, MASTER, SLAVE, fill, open_keys
from heliograph.storage.group_commit import run_group

__all__ = ["run"]

CLIENTS: Final = 64
_KEY_BITS: Final = 256
_SMALL_POOL: Final = 100_000
_PATH: Final = f"/api/v1/keys/{SLAVE}/enc_keys"


class _Key(msgspec.Struct):
    key_ID: str  # noqa: N815  - the standard's name
    key: str


class _Container(msgspec.Struct):
    keys: list[_Key]


@dataclass(slots=True)
class _Seen:
    """What all clients of one measurement saw."""

    key_ids: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list, repr=False)
    refused: int = 0

    def read(self, answer: bytes, number: int) -> None:
        """Count an answer, head and body, to a request for ``number`` keys."""
        keys = []
        if answer.startswith(b"HTTP/1.1 200 "):
            keys = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=_Container).keys
        self.refused += len(keys) != number
        self.key_ids += [key.key_ID for key in keys]
        self.keys += [key.key for key in keys]

    def add(self, other: _Seen) -> None:
        """Count what another measurement saw."""
        self.key_ids += other.key_ids
        self.keys += other.keys
        self.refused += other.refused

    def duplicates(self) -> int:
        """Return how many keys came again, under the same name or under another one."""
        return max(len(found) - len(set(found)) for found in (self.key_ids, self.keys))


def run(*, singles: int = 6000, batches: int = 512, store_calls: int = 2000, pool: int | None = None) -> dict[str, Any]:
    """Return the stage's document. Counts of requests; each client has one connection and waits for each answer.

    ``pool``: measure a store of 100,000 keys and one of so many instead, in one run.
    """
    server_cpu, client_cpu = _processors()
    affinity = os.sched_getaffinity(0)
    if client_cpu >= 0:
        os.sched_setaffinity(0, {client_cpu})
    try:
        seen = _Seen()
        if pool is not None:
            document = asyncio.run(_pools(pool, singles, batches, server_cpu, seen))
        else:
            document = _rates(singles, batches, store_calls, server_cpu, seen)
    finally:
        os.sched_setaffinity(0, affinity)
    duplicates = seen.duplicates()
    failures = [f"{duplicates} keys were delivered twice"] if duplicates else []
    if seen.refused:
        failures.append(f"{seen.refused} requests were refused or answered without their keys")
    own = f"the server alone on processor {server_cpu}, the clients on processor {client_cpu}"
    return {
        "stage": "kme",
        **document,
        "duplicates": duplicates,
        "delivered": len(seen.key_ids),
        "clients": CLIENTS,
        "profile": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            "openssl": ssl.OPENSSL_VERSION,
            "server": f"one process; {own if server_cpu >= 0 else 'the clients share its processor'}",
            "durability": "SQLite WAL, synchronous=FULL, anchor synced",
        },
        "failures": failures,
    }


def _processors() -> tuple[int, int]:
    """Return a processor for the server and one for the clients, (-1, -1) where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[-1], allowed[0]) if len(allowed) > 1 else (-1, -1)


def _rates(singles: int, batches: int, store_calls: int, cpu: int, seen: _Seen) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    figures: dict[str, dict[str, Any]] = {}
    # Name, what the server does, keys in a request, requests.
    for name, mode, number, requests in (
        ("single requests", "durable", 1, singles),
        ("batched requests", "durable", BATCH, batches),
        ("single requests, a commit each", "single", 1, max(CLIENTS, singles // 8)),
        ("limit: single requests, constant answer", "constant", 1, singles),
        ("limit: batched requests, constant answer", "constant", BATCH, batches),
    ):
        figures[name] = asyncio.run(_alone(name, mode, number, requests, cpu, seen))
        results.append(figures[name])
    results += _store_alone(store_calls)
    single, batched = figures["single requests"], figures["batched requests"]
    return {
        "single_requests_per_s": single["requests_per_s"],
        "single_requests_per_cpu_s": single["requests_per_cpu_s"],
        "batched_keys_per_s": batched["keys_per_s"],
        "batched_keys_per_cpu_s": batched["keys_per_cpu_s"],
        "p50_ms": single["p50_ms"],
        "p99_ms": single["p99_ms"],
        "results": results,
    }


async def _alone(name: str, mode: str, number: int, requests: int, cpu: int, seen: _Seen) -> dict[str, Any]:
    async with _server(mode, number * requests, cpu) as (server, port, tls):
        figures, found = await _load(server, port, tls, name, number, requests)
    if mode != "constant":  # each server has its own store; a key of one in another would be a duplicate too
        seen.add(found)
    return figures


async def _pools(pool: int, singles: int, batches: int, cpu: int, seen: _Seen) -> dict[str, Any]:
    """Measure with a small pool and with a large one; what the measurements take is put in beside."""
    results: list[dict[str, Any]] = []
    filling: list[float] = []
    for size in (min(_SMALL_POOL, pool), pool):
        async with _server("durable", size + singles + BATCH * batches, cpu, filling) as (server, port, tls):
            for what, number, requests in (("single", 1, singles), ("batched", BATCH, batches)):
                name = f"pool of {size:,} keys: {what} requests"
                figures, found = await _load(server, port, tls, name, number, requests)
                results.append(figures)
                seen.add(found)
    few, few_batched, many, many_batched = results[:4]
    return {
        "pool": pool,
        "filled_s": filling[1],
        "filled_keys_per_s": (pool + singles + BATCH * batches) / filling[1],
        "single_ratio": many["requests_per_cpu_s"] / few["requests_per_cpu_s"],
        "batched_ratio": many_batched["keys_per_cpu_s"] / few_batched["keys_per_cpu_s"],
        "memory_ratio": many_batched["rss_kb"] / few_batched["rss_kb"],
        "results": results,
    }


@asynccontextmanager
async def _server(
    mode: str, keys: int, cpu: int, filling: list[float] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, ssl.SSLContext]]:
    """Start a server over a store of ``keys`` keys. ``filling``: takes how many seconds it took to fill it."""
    with tempfile.TemporaryDirectory(prefix="heliograph-bench-") as place:
        directory = Path(place)
        if mode != "constant":
            began = time.perf_counter()
            filler = await _under_load(place, keys, "fill", cpu)
            await _line(filler)
            if await filler.wait():
                raise RuntimeError("the store could not be filled")
            if filling is not None:
                filling.append(time.perf_counter() - began)
        server = await _under_load(place, keys, mode, cpu)
        assert server.stdin is not None
        try:
            port = int((await _line(server))["port"])
            yield server, port, client_tls(directory / "sae.pem", directory / "sae.key", directory / "ca.pem", "kme-a")
        finally:
            server.stdin.close()
            await server.wait()


async def _under_load(place: str, keys: int, mode: str, cpu: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heliograph.lab.kme_under_load", place, str(keys), mode, str(cpu)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
    )


async def _load(
    server: asyncio.subprocess.Process, port: int, tls: ssl.SSLContext, name: str, number: int, requests: int
) -> tuple[dict[str, Any], _Seen]:
    loop, left = asyncio.get_running_loop(), iter(range(requests))
    clients = [
        (await loop.create_connection(partial(_Client, number, left), "127.0.0.1", port, ssl=tls))[1]
        for _ in range(CLIENTS)
    ]
    before = await _used(server)
    began = time.perf_counter()
    for client in clients:
        client.ask()
    await asyncio.gather(*(client.done for client in clients))
    seconds = time.perf_counter() - began
    after = await _used(server)
    seen = _Seen()
    for client in clients:
        client.transport.abort()
        for answer in client.answers:
            seen.read(answer, number)
    cpu = after["cpu_s"] - before["cpu_s"]
    delays = sorted(delay for client in clients for delay in client.delays)
    answered = len(delays)
    figures = row(
        name,
        _KEY_BITS * len(seen.key_ids),
        seconds,
        requests=answered,
        keys=len(seen.key_ids),
        requests_per_s=answered / seconds,
        keys_per_s=len(seen.key_ids) / seconds,
        requests_per_cpu_s=answered / cpu,
        keys_per_cpu_s=len(seen.key_ids) / cpu,
        p50_ms=1e3 * delays[answered // 2] if delays else None,
        p99_ms=1e3 * delays[answered * 99 // 100] if delays else None,
        rss_kb=after["rss_kb"],
    )
    return figures, seen


class _Client(asyncio.Protocol):
    """One connection: the next request leaves when the answer to the one before is whole.

    Answers are kept as they came and read after the measurement: clients must not be what limits the server.
    """

    transport: asyncio.Transport

    def __init__(self, number: int, left: Iterator[int]) -> None:
        body = json.dumps({"number": number}).encode()
        head = f"POST {_PATH} HTTP/1.1\r\nHost: {MASTER}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self._left = left
        self._began = 0.0
        self._came = b""
        self._whole = 0  # bytes of the answer under way, 0 before its head is here
        self.answers: list[bytes] = []
        self.delays: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        """Send the next request, if there is one left."""
        if next(self._left, None) is None:
            self.done.set_result(None)
            return
        self._began = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self._whole:
            end = self._came.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            length = self._came[:end].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._whole = end + int(length)
        if len(self._came) >= self._whole:
            self.delays.append(time.perf_counter() - self._began)
            self.answers.append(self._came)
            self._came, self._whole = b"", 0
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server ended the connection"))


def _store_alone(calls: int) -> list[dict[str, Any]]:
    """Measure the store without HTTP and TLS: single deliveries in groups of one for each client, and batches."""
    found = []
    for name, number, many, group in (
        ("limit: store alone, single deliveries in groups", 1, calls, CLIENTS),
        ("limit: store alone, batches", BATCH, max(1, calls // 16), 1),
    ):
        with tempfile.TemporaryDirectory(prefix="heliograph-bench-") as place:
            database, keys = open_keys(Path(place))
            fill(database, keys, many * number)
            work = partial(keys.deliver_to_master, MASTER, SLAVE, number, 1.0)
            began, cpu = time.perf_counter(), time.process_time()
            for first in range(0, many, group):
                run_group(database, [work] * min(group, many - first))
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            database.close()
        found.append(
            row(
                name,
                _KEY_BITS * many * number,
                seconds,
                requests_per_s=many / seconds,
                keys_per_s=many * number / seconds,
                keys_per_cpu_s=many * number / cpu,
            )
        )
    return found


async def _line(server: asyncio.subprocess.Process) -> dict[str, Any]:
    assert server.stdout is not None
    document: dict[str, Any] = json.loads(await server.stdout.readline())
    return document


async def _used(server: asyncio.subprocess.Process) -> dict[str, Any]:
    assert server.stdin is not None
    server.stdin.write(b"\n")
    return await _line(server)
