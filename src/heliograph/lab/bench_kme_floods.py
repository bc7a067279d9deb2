"""``heliograph bench kme-floods``: what a rightful SAE waits while others flood the key manager, beside a quiet time.

Key manager, flooder and rightful SAEs are processes of their own, and the flooder is the last to get a processor. Where
there are two processors everything is measured twice: all on all of them, and the key manager alone on one. Phases
follow each other in turns, so that what else the machine does meets all of them. Strangers have no client certificate;
every key that leaves is accounted for.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from heliograph.errors import HeliographError
from heliograph.http.tls import client_tls
from heliograph.lab.bench_rows import row
from heliograph.lab.kme_flooder import GREEDY, LIMIT_PER_S, answer_of
from heliograph.lab.malformed_wire import whole_request
from heliograph.lab.marked_kme_process import MarkedKme

__all__ = ["PHASES", "run"]

PHASES: Final = {
    "quiet": "nothing else",
    "limit": f"one SAE at its limit of {LIMIT_PER_S:g} requests a second",
    "greedy": "one SAE on 16 connections, as fast as it is answered or refused",
    "strangers": "TLS connections without a client certificate, 16 at a time",
    "halves": "200 connections that stop in the middle of the handshake",
}
SHARED: Final = "all on all processors"
ALONE: Final = "the key manager alone on a processor"
_RIGHTFUL: Final = 3
_PER_S: Final = 20.0  # requests of each rightful SAE
_FRESH: Final = 8  # of so many requests one comes on a new connection
_BITS: Final = 256


@dataclass
class _Seen:
    seconds: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    refused: int = 0
    keys: int = 0
    flood: dict[str, float] = field(default_factory=dict)
    unaccounted: int = 0
    server_cpu_s: float = 0.0
    elapsed: float = 0.0


def run(*, seconds: float = 4.0, rounds: int = 3) -> dict[str, Any]:
    """Return the stage's document: each phase lasts ``seconds`` in each of ``rounds`` turns."""
    affinity = os.sched_getaffinity(0)
    alone = max(affinity)
    placements = {SHARED: (affinity, affinity)}
    if len(affinity) > 1:
        placements[ALONE] = ({alone}, affinity - {alone})
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    ratios: dict[str, dict[str, float]] = {}
    consumed = 0
    for placement, (server, others) in placements.items():
        seen = _measured(seconds, rounds, server, others, affinity)
        found = [_row(phase, placement, one) for phase, one in seen.items()]
        where = "" if placement == SHARED else "_server_alone"
        for name in ("p50", "p99"):
            ratios[f"{name}_ratio{where}"] = {
                phase: figures[f"{name}_ms"] / found[0][f"{name}_ms"]
                for phase, figures in zip(PHASES, found, strict=True)
            }
        for name in ("server_cpu", "flooder_cpu"):
            ratios[f"{name}{where}"] = {phase: figures[name] for phase, figures in zip(PHASES, found, strict=True)}
        rows += found
        failures += _failures(seen)
        consumed += seen["strangers"].unaccounted + seen["halves"].unaccounted
    return {
        "stage": "kme-floods",
        **ratios,
        "keys_consumed_by_strangers": consumed,
        "results": rows,
        "profile": {
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0],
            "rightful": f"{_RIGHTFUL} SAEs, {_PER_S:g} requests a second each, one of {_FRESH} on a new connection",
            "limit_per_s": LIMIT_PER_S,
        },
        "failures": failures,
    }


def _measured(seconds: float, rounds: int, server: set[int], others: set[int], affinity: set[int]) -> dict[str, _Seen]:
    """Run all phases with the key manager on the processors ``server``, and flooder and rightful SAEs on ``others``."""
    with tempfile.TemporaryDirectory(prefix="heliograph-floods-") as name:
        directory = Path(name)
        keys = int(len(PHASES) * rounds * (seconds + 5) * LIMIT_PER_S) + 256  # more than any SAE may have in that time
        try:
            os.sched_setaffinity(0, server)  # a process begins where its parent is
            manager = MarkedKme(directory, GREEDY + 1, keys, LIMIT_PER_S)
            os.sched_setaffinity(0, others)
            try:
                return asyncio.run(_phases(manager, directory, seconds, rounds))
            finally:
                manager.close()
        finally:
            os.sched_setaffinity(0, affinity)


def _failures(seen: dict[str, _Seen]) -> list[str]:
    strangers = seen["strangers"], seen["halves"]
    failures = []
    if consumed := sum(found.unaccounted for found in strangers):
        failures.append(f"{consumed} keys left the store while strangers knocked, and nobody rightful has them")
    if served := sum(found.flood.get("served", 0) for found in strangers):
        failures.append(f"{served} requests without a client certificate were answered with 200")
    if refused := sum(found.refused for found in seen.values()):
        failures.append(f"{refused} requests of rightful SAEs were refused")
    return failures


def _row(phase: str, placement: str, found: _Seen) -> dict[str, Any]:
    kept, fresh = sorted(found.seconds), sorted(found.fresh)
    return row(
        f"{phase}: {PHASES[phase]}; {placement}",
        _BITS * found.keys,
        found.elapsed,
        requests=len(kept) + len(fresh),
        requests_per_s=(len(kept) + len(fresh)) / found.elapsed,
        p50_ms=1e3 * kept[len(kept) // 2],
        p99_ms=1e3 * kept[len(kept) * 99 // 100],
        fresh_p50_ms=1e3 * fresh[len(fresh) // 2] if fresh else None,
        fresh_p99_ms=1e3 * fresh[len(fresh) * 99 // 100] if fresh else None,
        refused=found.refused,
        flood_attempts=found.flood.get("attempts", 0),
        flood_per_s=found.flood.get("attempts", 0) / found.elapsed,
        flood_served=found.flood.get("served", 0),
        flood_refused=found.flood.get("refused", 0),
        server_cpu=found.server_cpu_s / found.elapsed,
        flooder_cpu=found.flood.get("cpu_s", 0.0) / found.elapsed,
        keys_unaccounted=found.unaccounted,
    )


async def _phases(manager: MarkedKme, directory: Path, seconds: float, rounds: int) -> dict[str, _Seen]:
    tls = [
        client_tls(directory / f"sae-{n}.pem", directory / f"sae-{n}.key", directory / "ca.pem") for n in range(GREEDY)
    ]
    seen = {phase: _Seen() for phase in PHASES}
    state = manager.state()
    for _ in range(rounds):
        for phase, found in seen.items():
            before, served = found.keys, found.flood.get("served", 0)
            flooder = None if phase == "quiet" else await _flooder(directory, manager.port, phase)
            began = time.perf_counter()
            await asyncio.gather(*(_ask(n, manager.port, tls[n], seconds, found) for n in range(_RIGHTFUL)))
            found.elapsed += time.perf_counter() - began
            if flooder is not None:
                for name, count in (await _ended(flooder)).items():
                    found.flood[name] = found.flood.get(name, 0) + count
            last, state = state, await asyncio.to_thread(manager.state)
            own = int(found.flood.get("served", 0) - served) if phase in {"limit", "greedy"} else 0
            left = sum(last["left"]) - sum(state["left"])
            found.unaccounted += left - (found.keys - before) - own
            found.server_cpu_s += state["cpu_s"] - last["cpu_s"]
    return seen


async def _flooder(directory: Path, port: int, what: str) -> asyncio.subprocess.Process:
    words = ["-m", "heliograph.lab.kme_flooder", str(directory), str(port), what]
    flooder = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
    )
    assert flooder.stdout is not None
    await flooder.stdout.readline()
    return flooder


async def _ended(flooder: asyncio.subprocess.Process) -> dict[str, float]:
    out, _ = await flooder.communicate(b"")
    try:
        found: dict[str, float] = json.loads(out)
    except ValueError:
        raise HeliographError("the flooder failed") from None
    return found


async def _ask(number: int, port: int, tls: ssl.SSLContext, seconds: float, found: _Seen) -> None:
    loop, turn = asyncio.get_running_loop(), 0
    request = whole_request(f"/api/v1/keys/peer-{number}/enc_keys")
    kept = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    due = loop.time() + number / _PER_S / _RIGHTFUL
    end = due + seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - loop.time()))
        due += 1 / _PER_S
        began = time.perf_counter()
        new = turn % _FRESH == 0
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls) if new else kept
            writer.write(request)
            status, _ = await answer_of(reader)
        except (OSError, asyncio.IncompleteReadError):
            if not new:
                raise
            status = 0  # not let in
        else:
            (found.fresh if new else found.seconds).append(time.perf_counter() - began)
            if new:
                writer.transport.abort()
        found.keys += status == 200
        found.refused += status != 200
        turn += 1
    kept[1].transport.abort()
