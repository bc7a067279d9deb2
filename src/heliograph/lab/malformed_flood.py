"""Malformed requests against the key manager's door in this process: what is answered, and what is not told.

The door, the codec, the rules and the store are those of a site; HTTP and TLS are left out, so that a million requests
fit into minutes. Every stored key begins with a marker; it is searched for in every answer and in the log at DEBUG.
"""

from __future__ import annotations

import base64
import logging
import resource
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from heliograph.http.server import KmeServer
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.lab.malformed import CALLER, MASTER, THIEF, MalformedRequests
from heliograph.site.clocks import WallClock
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

__all__ = ["MalformedReport", "send_malformed"]

_MARKER = b"CANARY-OF-A-KEY-"[:15]  # whole groups of three: its base64 form is a fixed text
_KEYS = 64
_FORMS = (_MARKER, base64.b64encode(_MARKER), _MARKER.hex().encode(), _MARKER.hex().upper().encode())


@dataclass(frozen=True, slots=True)
class MalformedReport:
    """``statuses``: answers by HTTP status; ``served``: answers that must not have been 200; times in seconds."""

    requests: int
    statuses: dict[str, int]
    server_errors: int
    served: int
    canaries_in_answers: int
    canaries_in_log: int
    keys_lost: int
    slowest_s: float
    seconds: float
    grown_kib: int

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        bad = self.server_errors, self.served, self.canaries_in_answers, self.canaries_in_log, self.keys_lost
        return not any(bad)


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found = 0

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record).encode(errors="replace")
        self.found += any(form in text for form in _FORMS)


async def send_malformed(number: int, seed: int) -> MalformedReport:
    """Send ``number`` requests, one after the other. Raises HeliographError if there is no store to be had."""
    with tempfile.TemporaryDirectory() as directory:
        kek = Path(directory) / "kek"
        FileKek.create(kek, SystemRandomness())
        database = Database(":memory:", FileKek(kek, SystemRandomness()))
        keys = KeyRecords(database, SystemRandomness())
        theirs = _fill(database, keys)
        pairs = [SaePair(CALLER, MASTER, "kme-b"), SaePair(THIEF, MASTER, "kme-b")]
        server = KmeServer(Supply(keys, "kme-a", pairs, Limits(), WallClock()))
        log = _Log()
        root = logging.getLogger()
        before = root.level
        root.addHandler(log)
        root.setLevel(logging.DEBUG)
        try:
            return await _send(server, keys, log, MalformedRequests(seed, theirs), number)
        finally:
            root.removeHandler(log)
            root.setLevel(before)
            await server.close()
            database.close()


def _fill(database: Database, keys: KeyRecords) -> list[str]:
    """Store marked keys to be handed out, and others that are held for another SAE; return the latter's key_IDs."""
    rows = []
    for master, slave, here in ((CALLER, MASTER, True), (MASTER, THIEF, False)):
        for _ in range(_KEYS):
            material = _MARKER + SystemRandomness().draw(17)
            rows.append(NewKey(str(uuid.uuid4()), master, slave, here, material, 0.0))
    with database.transaction() as cursor:
        keys.add(cursor, 1, 1, rows)
        keys.acknowledge(cursor, 1, 1)
    return [row.key_id for row in rows if not row.owner_here]


async def _send(
    server: KmeServer, keys: KeyRecords, log: _Log, requests: MalformedRequests, number: int
) -> MalformedReport:
    statuses: Counter[int] = Counter()
    canaries, slowest, begun = 0, 0.0, time.perf_counter()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(number):
        asked = requests.next()

        async def body(content: bytes = asked.body) -> bytes:
            return content

        at = time.perf_counter()
        serving = server.answer(asked.verb, asked.path, asked.query, lambda who=asked.caller: who, body)  # type: ignore[misc]
        answer = await server.settled(serving)
        slowest = max(slowest, time.perf_counter() - at)
        statuses[answer.status] += 1
        canaries += any(form in answer.body for form in _FORMS)
    return MalformedReport(
        requests=number,
        statuses={str(status): count for status, count in sorted(statuses.items())},
        server_errors=sum(count for status, count in statuses.items() if status >= 500),
        served=sum(count for status, count in statuses.items() if status < 400),
        canaries_in_answers=canaries,
        canaries_in_log=log.found,
        keys_lost=2 * _KEYS - keys.counts(CALLER, MASTER).deliverable - keys.counts(MASTER, THIEF).held,
        slowest_s=round(slowest, 4),
        seconds=round(time.perf_counter() - begun, 1),
        grown_kib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown,
    )
