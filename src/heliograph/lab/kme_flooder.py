"""``python -m heliograph.lab.kme_flooder DIR PORT WHAT``: what a key manager has to stand, until standard input ends.

WHAT: "greedy" and "limit" send an SAE's valid requests, as fast as they are answered or at 200 a second; "strangers"
open TLS connections without a client certificate and ask for keys; "halves" open connections and stop in the middle of
the handshake, 200 at a time. It runs at the lowest priority: a real flood comes from another machine, and takes no
processor from who measures. It writes a line when it begins; at the end one JSON line tells how many attempts there
were, how many answers of status 200 and of other ones, and the seconds of processor time that they took.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from heliograph.http.tls import client_tls
from heliograph.lab.malformed_wire import hello, whole_request

__all__ = ["GREEDY", "LIMIT_PER_S", "answer_of", "main"]

GREEDY: Final = 3  # the SAE that takes all it can get
LIMIT_PER_S: Final = 200.0
_AT_ONCE: Final = 16
_HALVES: Final = 200


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one answer: status and body. Raises asyncio.IncompleteReadError, OSError."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


async def _greedy(directory: Path, port: int, counts: Counter[str], pause_s: float) -> None:
    """Ask again and again on one connection; with a pause, at a steady rate."""
    name = f"sae-{GREEDY}"
    tls = client_tls(directory / f"{name}.pem", directory / f"{name}.key", directory / "ca.pem")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    request, loop = whole_request(f"/api/v1/keys/peer-{GREEDY}/enc_keys"), asyncio.get_running_loop()
    due = loop.time()
    while True:
        due += pause_s
        await asyncio.sleep(max(0.0, due - loop.time()))
        writer.write(request)
        counts["attempts"] += 1
        status, _ = await answer_of(reader)
        counts["served" if status == 200 else "refused"] += 1


async def _stranger(port: int, counts: Counter[str]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False  # it wants keys, not to know from whom
    tls.verify_mode = ssl.CERT_NONE
    request = whole_request("/api/v1/keys/peer-0/enc_keys")
    while True:
        counts["attempts"] += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            try:
                writer.write(request)
                status, _ = await answer_of(reader)
                counts["served" if status == 200 else "refused"] += 1
            finally:
                writer.transport.abort()


async def _half(port: int, counts: Counter[str], first: bytes) -> None:
    while True:
        counts["attempts"] += 1
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            await reader.read()  # until the key manager has had enough
            writer.transport.abort()


async def _flood(directory: Path, port: int, what: str) -> None:
    counts: Counter[str] = Counter()
    half = hello()[:100]
    work = {
        "greedy": [_greedy(directory, port, counts, 0.0) for _ in range(_AT_ONCE)],
        "limit": [_greedy(directory, port, counts, 2 / LIMIT_PER_S) for _ in range(2)],
        "strangers": [_stranger(port, counts) for _ in range(_AT_ONCE)],
        "halves": [_half(port, counts, half) for _ in range(_HALVES)],
    }
    for name, never in work.items():
        if name != what:
            for one in never:
                one.close()
    tasks, spent = [asyncio.create_task(one) for one in work[what]], time.process_time()
    sys.stdout.write("{}\n")  # it has begun
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    sys.stdout.write(json.dumps({**counts, "cpu_s": time.process_time() - spent}) + "\n")


def main(arguments: list[str]) -> None:
    """Flood until standard input ends."""
    os.nice(19)
    asyncio.run(_flood(Path(arguments[0]), int(arguments[1]), arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
