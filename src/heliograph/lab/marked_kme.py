"""``python -m heliograph.lab.marked_kme DIR SAES KEYS REQUESTS_PER_S``: a key manager whose keys are recognised.

SAE ``sae-N`` shares keys with ``peer-N``; each key begins with a marker and N. Each SAE may send so many
requests a second (0: any number). It logs at DEBUG into ``log`` below DIR
and writes one JSON line when it listens. For each line on its standard input it tells its memory and how many keys
each SAE has left. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Final

from heliograph.http.server import KmeServer
from heliograph.http.tls import server_tls
from heliograph.kme.quotas import Quota, Quotas
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.kme_under_load import open_keys
from heliograph.lab.memory import measure_memory
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.storage.database import Database
from heliograph.storage.group_commit import run_group
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.certificates import SiteCa
from heliograph.vault.randomness import SystemRandomness

__all__ = ["FORMS", "MARKER", "main", "owner_of"]

MARKER: Final = b"CANARY-OF-A-KEY"  # whole groups of three: its base64 form is a fixed text
FORMS: Final = (MARKER, base64.b64encode(MARKER), MARKER.hex().encode(), MARKER.hex().upper().encode())


def owner_of(key: str) -> int | None:
    """Return whose key this is, in base64; None if it is none of ours."""
    try:
        material = base64.b64decode(key, validate=True)
    except ValueError:
        return None
    return material[len(MARKER)] if len(material) == 32 and material.startswith(MARKER) else None


def _fill(database: Database, keys: KeyRecords, sae: int, number: int, *, here: bool) -> list[str]:
    pair = (f"sae-{sae}", f"peer-{sae}") if here else (f"peer-{sae}", f"sae-{sae}")
    now, draw = WallClock().now(), SystemRandomness().draw
    rows = [NewKey(str(uuid.uuid4()), *pair, here, MARKER + bytes([sae]) + draw(16), now) for _ in range(number)]
    epoch, block = 1 + here, 1 + sae
    with database.transaction() as cursor:
        keys.add(cursor, epoch, block, rows)
        keys.acknowledge(cursor, epoch, block)
    return [row.key_id for row in rows]


async def _serve(directory: Path, saes: int, number: int, requests_per_s: float) -> None:
    ca = SiteCa.create("laboratory")
    files = ca.issue_kme("kme-a", ["127.0.0.1"]).write(directory, "kme")
    for sae in range(saes):
        ca.issue_sae(f"sae-{sae}").write(directory, f"sae-{sae}")
    logging.basicConfig(filename=directory / "log", level=logging.DEBUG)
    database, keys = open_keys(directory)
    held = [_fill(database, keys, sae, 16, here=False) for sae in range(saes)]
    for sae in range(saes):
        _fill(database, keys, sae, number, here=True)
    pairs = [SaePair(f"sae-{sae}", f"peer-{sae}", "kme-b") for sae in range(saes)]
    quota = Quota(max(1.0, requests_per_s), requests_per_s) if requests_per_s else None
    supply = Supply(keys, "kme-a", pairs, Limits(), WallClock(), quotas=Quotas(MonotonicClock(), quota))
    server = KmeServer(supply)
    server.commit_together(partial(run_group, database), database)
    await server.start("127.0.0.1", 0, server_tls(*files))
    _tell({"port": server.port, "held": held})
    while await asyncio.to_thread(sys.stdin.readline):
        left = [keys.counts(f"sae-{sae}", f"peer-{sae}").deliverable for sae in range(saes)]
        kept = [keys.counts(f"peer-{sae}", f"sae-{sae}").held for sae in range(saes)]
        _tell({"memory": measure_memory(), "cpu_s": time.process_time(), "left": left, "held": kept})
    await server.close()
    database.close()


def _tell(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Serve until standard input ends."""
    asyncio.run(_serve(Path(arguments[0]), int(arguments[1]), int(arguments[2]), float(arguments[3])))


if __name__ == "__main__":
    main(sys.argv[1:])
