"""``heliograph bench kme``: requests and keys a second over mutual TLS, every delivery durable, beside their limits."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from heliograph.http.tls import client_tls
from heliograph.lab.bench_rows import row
from heliograph.lab.kme_under_load import BATCH, MASTER, SLAVE, fill, open_keys
from heliograph.storage.group_commit import run_group

__all__ = ["run"]

CLIENTS: Final = 64
_KEY_BITS: Final = 256
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
    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    def duplicates(self) -> int:
        """Return how many keys came again, under the same name or under another one."""
        return max(len(found) - len(set(found)) for found in (self.key_ids, self.keys))


def run(*, singles: int = 6000, batches: int = 512, store_calls: int = 2000) -> dict[str, Any]:
    """Return the stage's document. Counts of requests; each client has one connection and waits for each answer."""
    results: list[dict[str, Any]] = []
    seen = _Seen()
    figures: dict[str, dict[str, Any]] = {}
    # Name, what the server does, keys in a request, requests.
    for name, mode, number, requests in (
        ("single requests", "durable", 1, singles),
        ("batched requests", "durable", BATCH, batches),
        ("single requests, a commit each", "single", 1, max(CLIENTS, singles // 8)),
        ("limit: single requests, constant answer", "constant", 1, singles),
        ("limit: batched requests, constant answer", "constant", BATCH, batches),
    ):
        figures[name], found = asyncio.run(_measure(name, mode, number, requests))
        results.append(figures[name])
        if mode != "constant":  # each server has its own store; a key of one in another would be a duplicate too
            seen.key_ids += found.key_ids
            seen.keys += found.keys
            seen.refused += found.refused
    results += _store_alone(store_calls)
    single, batched = figures["single requests"], figures["batched requests"]
    duplicates = seen.duplicates()
    failures = [f"{duplicates} keys were delivered twice"] if duplicates else []
    if seen.refused:
        failures.append(f"{seen.refused} requests were refused or answered without their keys")
    return {
        "stage": "kme",
        "single_requests_per_s": single["requests_per_s"],
        "batched_keys_per_s": batched["keys_per_s"],
        "p50_ms": single["p50_ms"],
        "p99_ms": single["p99_ms"],
        "duplicates": duplicates,
        "delivered": len(seen.key_ids),
        "clients": CLIENTS,
        "profile": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "openssl": ssl.OPENSSL_VERSION,
            "server": "one process; the clients share the machine",
            "durability": "SQLite WAL, synchronous=FULL, anchor synced",
        },
        "results": results,
        "failures": failures,
    }


async def _measure(name: str, mode: str, number: int, requests: int) -> tuple[dict[str, Any], _Seen]:
    with tempfile.TemporaryDirectory(prefix="heliograph-bench-") as place:
        directory = Path(place)
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "heliograph.lab.kme_under_load",
            place,
            str(number * requests),
            mode,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert server.stdin is not None
        try:
            port = int((await _line(server))["port"])
            tls = client_tls(directory / "sae.pem", directory / "sae.key", directory / "ca.pem", "kme-a")
            seen, left = _Seen(), iter(range(requests))
            ends = [await asyncio.open_connection("127.0.0.1", port, ssl=tls) for _ in range(CLIENTS)]
            before = await _used(server)
            began = time.perf_counter()
            await asyncio.gather(*(_consume(*end, number, left, seen) for end in ends))
            seconds = time.perf_counter() - began
            after = await _used(server)
            for _, writer in ends:
                writer.transport.abort()
        finally:
            server.stdin.close()
            await server.wait()
    cpu = after["cpu_s"] - before["cpu_s"]
    delays = sorted(seen.seconds)
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


async def _consume(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    number: int,
    left: Iterator[int],
    seen: _Seen,
) -> None:
    body = json.dumps({"number": number}).encode()
    request = f"POST {_PATH} HTTP/1.1\r\nHost: {MASTER}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for _ in left:
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        seen.seconds.append(time.perf_counter() - began)
        keys = msgspec.json.decode(answer, type=_Container).keys if head.startswith(b"HTTP/1.1 200 ") else []
        seen.refused += len(keys) != number
        seen.key_ids += [key.key_ID for key in keys]
        seen.keys += [key.key for key in keys]


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
