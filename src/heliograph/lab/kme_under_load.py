"""``python -m heliograph.lab.kme_under_load DIR KEYS durable|single|constant CPU``: a key manager to be measured.

It runs on one processor, number CPU (-1: on all), and writes one JSON line when it listens. For each line on its
standard input it answers with its CPU time and memory; after the line ``fill N`` its store holds N keys more.
durable: as a site runs it; single: the same, each request with a commit of its own; constant: the same server, whose
store answers the same keys again and again, which shows what HTTP and TLS alone cost.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from heliograph.http.server import KmeServer
from heliograph.http.store_groups import RunGroup
from heliograph.http.tls import server_tls
from heliograph.kme.supply import Accept, KeyStore, Limits, SaePair, Supply
from heliograph.site.clocks import WallClock
from heliograph.storage.database import Database
from heliograph.storage.group_commit import run_group
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.storage.store_seal import StoreSeal
from heliograph.types import StoredKey
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

__all__ = ["BATCH", "MASTER", "SLAVE", "fill", "main", "open_keys"]

MASTER, SLAVE, BATCH = "sae-a", "sae-b", 128
_SEGMENT = 4096  # keys of one block


class _ConstantStore:
    """Answers without a store; for the limit only, its keys are no keys."""

    def __init__(self) -> None:
        self._keys = [StoredKey(str(uuid.UUID(int=n)), MASTER, SLAVE, bytes(32)) for n in range(BATCH)]

    def deliver_to_master(
        self,
        master: str,
        slave: str,
        number: int,
        now: float,
        *,
        keep: int = 0,
        since: float = float("-inf"),
        accept: Accept = list,
    ) -> list[StoredKey]:
        del master, slave, now, keep, since, accept
        return self._keys[:number]

    def deliver_to_slave(
        self, slave: str, master: str, key_ids: Sequence[str], now: float, accept: Accept = list
    ) -> list[StoredKey]:
        del slave, master, now, accept
        return self._keys[: len(key_ids)]

    def check_held(self, slave: str, master: str, key_ids: Sequence[str]) -> None:
        del slave, master, key_ids

    def stored_key_count(self, master: str, slave: str) -> int:
        del master, slave
        return BATCH

    def known(self, key_id: str) -> bool:
        del key_id
        return False


def open_keys(directory: Path) -> tuple[Database, KeyRecords]:
    """Return a store as a site has it: write-ahead log, sync at each commit, sealed, with its anchor outside."""
    randomness = SystemRandomness()
    kek = directory / "kek"
    vault = FileKek(kek, randomness) if kek.exists() else FileKek.create(kek, randomness)
    database = Database(directory / "store" / "keys.db", vault)
    return database, KeyRecords(database, randomness, StoreSeal(database, FileAnchor(directory / "anchor")))


def fill(database: Database, keys: KeyRecords, number: int, epoch: int = 1) -> None:
    """Put ``number`` fresh keys into the store, as the blocks of a new ``epoch`` do."""
    randomness, now = SystemRandomness(), WallClock().now()
    for block, first in enumerate(range(0, number, _SEGMENT), 1):
        many = min(_SEGMENT, number - first)
        secret = randomness.draw(32 * many)
        rows = [
            NewKey(str(uuid.uuid4()), MASTER, SLAVE, True, secret[32 * i : 32 * i + 32], now)  # noqa: FBT003
            for i in range(many)
        ]
        with database.transaction() as cursor:
            keys.add(cursor, epoch, block, rows)
            keys.acknowledge(cursor, epoch, block)
    database.checkpoint()


def _at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]


async def _serve(directory: Path, number: int, mode: str, cpu: int) -> None:
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
    ca = SiteCa.create("bench")
    files = ca.issue_kme("kme-a", ["127.0.0.1"]).write(directory, "kme")
    ca.issue_sae(MASTER).write(directory, "sae")
    store: KeyStore = _ConstantStore()
    run: RunGroup = _at_once
    if mode != "constant":
        database, keys = open_keys(directory)
        fill(database, keys, number)
        store, run = keys, partial(run_group, database)
    limits = Limits(max_key_per_request=BATCH, max_key_count=10**7)
    server = KmeServer(Supply(store, "kme-a", [SaePair(MASTER, SLAVE, "kme-b")], limits, WallClock()))
    if mode != "single":
        server.commit_together(run, None if mode == "constant" else database)
    await server.start("127.0.0.1", 0, server_tls(*files))
    _tell({"port": server.port})
    epoch = 1
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.startswith("fill ") and mode != "constant":
            epoch += 1
            await asyncio.to_thread(fill, database, keys, int(line.split()[1]), epoch)
        _tell({"cpu_s": time.process_time(), "rss_kb": _resident_kb()})
    await server.close()


def _resident_kb() -> int:
    """Return the memory that is resident now, not the most that ever was."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _tell(document: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Serve until standard input ends."""
    asyncio.run(_serve(Path(arguments[0]), int(arguments[1]), arguments[2], int(arguments[3])))


if __name__ == "__main__":
    main(sys.argv[1:])
