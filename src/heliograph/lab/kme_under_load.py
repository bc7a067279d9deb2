"""``python -m heliograph.lab.kme_under_load DIR KEYS fill|durable|single|constant CPU``: a key manager to be measured.

It runs on one processor, number CPU (-1: on all), and writes one JSON line when it listens. For each line on its
standard input it answers with its CPU time and memory.
fill: put KEYS keys into the store in DIR and end, in a process of its own: what that needs of memory is not the
server's. durable: as a site runs it; single: the same, each request with a commit of its own; constant: the same
server, whose store answers the same keys again and again, which shows what HTTP and TLS alone cost.
"""

from __future__ import annotations

import asyncio
import gc
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
from heliograph.storage.key_rows import key_id_texts
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
# Keys of one transaction while a store is filled: a name stands at a random place of a large tree, and the more of them
# come at once, the fewer times each of its pages is written. They wait in memory meanwhile.
_AT_ONCE = 1 << 20
_FILLING_MIB = 1024


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
        size_bytes: int | None = None,
        accept: Accept = list,
    ) -> list[StoredKey]:
        del master, slave, now, keep, since, size_bytes, accept
        return self._keys[:number]

    def deliver_to_slave(
        self, slave: str, master: str, key_ids: Sequence[str], now: float, accept: Accept = list
    ) -> list[StoredKey]:
        del slave, master, now, accept
        return self._keys[: len(key_ids)]

    def check_held(self, slave: str, master: str, key_ids: Sequence[str]) -> None:
        del slave, master, key_ids

    def unfetched(self, master: str, audience: str) -> dict[str, int]:
        """Return nothing: there are no groups here."""
        del master, audience
        return {}

    def stored_key_count(self, master: str, slave: str, size_bytes: int | None = None) -> int:
        del master, slave, size_bytes
        return BATCH

    def known(self, key_id: str) -> bool:
        del key_id
        return False


def open_keys(directory: Path, *, cache_mib: int | None = None) -> tuple[Database, KeyRecords]:
    """Return a store as a site has it: write-ahead log, sync at each commit, sealed, with its anchor outside."""
    randomness = SystemRandomness()
    kek = directory / "kek"
    vault = FileKek(kek, randomness) if kek.exists() else FileKek.create(kek, randomness)
    database = Database(directory / "store" / "keys.db", vault, cache_mib=cache_mib)
    return database, KeyRecords(database, randomness, StoreSeal(database, FileAnchor(directory / "anchor")))


def fill(database: Database, keys: KeyRecords, number: int) -> None:
    """Put ``number`` fresh keys into an empty store, block after block as a link does, many blocks in a transaction."""
    randomness, now = SystemRandomness(), WallClock().now()
    for start in range(0, number, _AT_ONCE):
        with database.transaction() as cursor:
            for first in range(start, min(number, start + _AT_ONCE), _SEGMENT):
                many, block = min(_SEGMENT, number - first), first // _SEGMENT + 1
                secret = randomness.draw(32 * many)
                rows = [
                    NewKey(key_id, MASTER, SLAVE, True, secret[32 * at : 32 * at + 32], now)  # noqa: FBT003
                    for at, key_id in enumerate(_key_ids(randomness.draw(16 * many)))
                ]
                keys.add(cursor, 1, block, rows)
                keys.acknowledge(cursor, 1, block)
    database.checkpoint()


def _key_ids(random: bytes) -> list[str]:
    """Return random UUIDs of version 4 (RFC 9562 5.4), as many as there are 16 bytes."""
    raw = bytearray(random)
    for at in range(0, len(raw), 16):
        raw[at + 6] = raw[at + 6] & 0x0F | 0x40
        raw[at + 8] = raw[at + 8] & 0x3F | 0x80
    texts = key_id_texts(bytes(raw)).decode("ascii")
    return [texts[at : at + 36] for at in range(0, len(texts), 36)]


def _at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]


def _fill(directory: Path, number: int) -> None:
    database, keys = open_keys(directory, cache_mib=_FILLING_MIB)
    fill(database, keys, number)
    database.close()
    _tell({"filled": number})


async def _serve(directory: Path, mode: str) -> None:
    ca = SiteCa.create("bench")
    files = ca.issue_kme("kme-a", ["127.0.0.1"]).write(directory, "kme")
    ca.issue_sae(MASTER).write(directory, "sae")
    store: KeyStore = _ConstantStore()
    run: RunGroup = _at_once
    if mode != "constant":
        database, keys = open_keys(directory)
        store, run = keys, partial(run_group, database)
    limits = Limits(max_key_per_request=BATCH, max_key_count=10**7)
    server = KmeServer(Supply(store, "kme-a", [SaePair(MASTER, SLAVE, "kme-b")], limits, WallClock()))
    if mode != "single":
        server.commit_together(run, None if mode == "constant" else database)
    await server.start("127.0.0.1", 0, server_tls(*files))
    gc.collect()
    gc.freeze()  # as `heliograph site run` does
    _tell({"port": server.port})
    while await asyncio.to_thread(sys.stdin.readline):
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
    """Fill the store; or serve until standard input ends."""
    directory, number, mode, cpu = Path(arguments[0]), int(arguments[1]), arguments[2], int(arguments[3])
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
    if mode == "fill":
        _fill(directory, number)
    else:
        asyncio.run(_serve(directory, mode))


if __name__ == "__main__":
    main(sys.argv[1:])
