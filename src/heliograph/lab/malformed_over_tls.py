"""``heliograph kme-chaos --malformed N --over-tls``: malformed bytes over real TLS connections, several SAEs at once.

The key manager runs in a process of its own. Every stored key begins with a marker and tells whose it is; the markers
are searched for in all that comes back and in the log at DEBUG. In between each SAE asks properly: its answer must be
its own, and every key new.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from heliograph.http.tls import client_tls
from heliograph.lab.malformed_wire import WireCases
from heliograph.lab.marked_kme import FORMS
from heliograph.lab.marked_kme_process import MarkedKme
from heliograph.lab.wire_client import WireClient, WireCounts

__all__ = ["MemorySample", "OverTlsReport", "send_malformed_over_tls"]

SAES: Final = 4
_EVERY: Final = 10  # cases between two valid requests
_TENTHS: Final = 10


@dataclass(frozen=True, slots=True)
class MemorySample:
    """The key manager's memory after ``requests`` cases, when none is under way (``lab.memory``)."""

    requests: int
    rss_kib: int
    heap_kib: int
    python_blocks: int


@dataclass(frozen=True, slots=True)
class OverTlsReport:
    """``cases``: by kind; ``statuses``: answers by HTTP status; ``unanswered``: ended without one.

    ``stalled``: answers or ends that did not come within 20 s; ``wrong``: valid requests without their own answer;
    ``strange_keys``: keys of another SAE; ``keys_lost``: taken from the store, and not by a valid request;
    ``memory``: of the key manager's process, at the beginning and after each tenth.
    """

    requests: int
    cases: dict[str, int]
    statuses: dict[str, int]
    unanswered: int
    connections: int
    server_errors: int
    served: int
    stalled: int
    valid: int
    wrong: int
    strange_keys: int
    duplicates: int
    canaries_in_answers: int
    canaries_in_log: int
    tracebacks_in_log: int
    keys_lost: int
    slowest_s: float
    seconds: float
    memory: list[MemorySample]
    found: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        bad = (
            self.server_errors, self.served, self.stalled, self.wrong, self.strange_keys, self.duplicates,
            self.canaries_in_answers, self.canaries_in_log, self.tracebacks_in_log, self.keys_lost,
        )  # fmt: skip
        return not any(bad)


def send_malformed_over_tls(number: int, seed: int) -> OverTlsReport:
    """Send ``number`` cases from ``SAES`` SAEs at once. Raises ConfigurationError if the key manager does not run."""
    with tempfile.TemporaryDirectory(prefix="heliograph-wire-") as name:
        directory = Path(name)
        each = -(-number // SAES)
        keys = each // _EVERY + 64
        manager = MarkedKme(directory, SAES, keys)
        try:
            return _run(manager, directory, number, seed, keys)
        finally:
            manager.close()


def _run(manager: MarkedKme, directory: Path, number: int, seed: int, keys: int) -> OverTlsReport:
    shares = [number // SAES + (sae < number % SAES) for sae in range(SAES)]
    tls = [
        client_tls(directory / f"sae-{sae}.pem", directory / f"sae-{sae}.key", directory / "ca.pem")
        for sae in range(SAES)
    ]
    clients = [WireClient(sae, manager.port, tls[sae]) for sae in range(SAES)]
    cases = [
        WireCases(seed * SAES + sae, f"peer-{sae}", f"peer-{(sae + 1) % SAES}", manager.held[(sae + 1) % SAES])
        for sae in range(SAES)
    ]
    stop = threading.Event()
    began = time.perf_counter()
    memory = [MemorySample(0, **manager.state()["memory"])]
    with ThreadPoolExecutor(SAES) as pool:
        try:
            for tenth in range(_TENTHS):
                counts = [share * (tenth + 1) // _TENTHS - share * tenth // _TENTHS for share in shares]
                list(pool.map(partial(_send, stop), clients, cases, counts))
                sent = sum(client.counts.cases.total() for client in clients)
                memory.append(MemorySample(sent, **manager.state()["memory"]))
        except BaseException:  # such as Ctrl-C, which only this thread hears of
            stop.set()
            manager.kill()
            raise
    seconds = time.perf_counter() - began
    total = WireCounts()
    for client in clients:
        client.close()
        total.add(client.counts)
    late = manager.state()
    log = (directory / "log").read_bytes() + (directory / "errors").read_bytes()
    taken = sum(keys - left for left in late["left"])
    lost_held = sum(len(held) - left for held, left in zip(manager.held, late["held"], strict=True))
    return OverTlsReport(
        requests=sum(total.cases.values()),
        cases=dict(sorted(total.cases.items())),
        statuses={str(status): count for status, count in sorted(total.statuses.items())},
        unanswered=total.unanswered,
        connections=total.connections,
        server_errors=total.server_errors,
        served=total.served,
        stalled=total.stalled,
        valid=total.valid,
        wrong=total.wrong,
        strange_keys=total.strange_keys,
        duplicates=sum(count - 1 for count in Counter(total.key_ids).values()),
        canaries_in_answers=total.canaries,
        canaries_in_log=sum(log.count(form) for form in FORMS),
        tracebacks_in_log=log.count(b"Traceback"),
        keys_lost=taken - len(total.key_ids) + lost_held,
        slowest_s=round(total.slowest_s, 3),
        seconds=round(seconds, 1),
        memory=memory,
        found=total.found[:10],
    )


def _send(stop: threading.Event, client: WireClient, cases: WireCases, number: int) -> None:
    for _ in range(number):
        if stop.is_set():
            return
        client.send(cases.next())
        if (sent := client.counts.cases.total()) % _EVERY == 0:
            client.ask(sent // _EVERY)
