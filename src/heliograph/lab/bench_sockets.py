"""Reconciliation between two processes on this host: what ``heliograph distill`` takes for it, sockets included."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from heliograph.lab.bench_rows import row
from heliograph.lab.distill import DistillOptions, run_distill
from heliograph.protocol.registration import Reconciliation

__all__ = ["over_sockets"]

_EPS = 1e-9


def over_sockets(n: int, qber: float, round_trip_s: float = 0.0, how: Reconciliation = "cascade") -> dict[str, Any]:
    """Return the row of one block of ``n`` bits (a multiple of 8), each end a process with a core to itself.

    Wall time of reconciliation alone, from the seed of its passes to the last correction, set-up included;
    ``round_trip_s``: of a line that delivers late.
    """
    rng = np.random.default_rng([5, n])
    bits = rng.integers(0, 2, n, dtype=np.uint8)
    wrong = rng.random(n, dtype=np.float32) < qber
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, side in (("alice", bits), ("bob", bits ^ wrong)):
            paths.append(Path(folder, f"{name}.bin"))
            paths[-1].write_bytes(np.packbits(side).tobytes())
        options = DistillOptions(paths[0], paths[1], _EPS, _EPS, reconciliation=how, round_trip_s=round_trip_s)
        report = asyncio.run(run_distill(options))
    late = f", {1000 * round_trip_s:g} ms round trip" if round_trip_s else ""
    return row(
        f"{how} over sockets, a process for each end{late}", n, report["reconciliation_s"], threads=2, qber=qber,
        efficiency=report["efficiency"], rounds=report["rounds"], exchange_s=report["exchange_s"],
    )  # fmt: skip
