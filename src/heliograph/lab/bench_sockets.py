"""Between two processes on this host, sockets included: what ``heliograph distill`` takes, for one block or several."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from heliograph.lab.bench_rows import row
from heliograph.lab.distill import DistillOptions, run_distill
from heliograph.protocol.registration import Reconciliation

__all__ = ["blocks_over_sockets", "over_sockets", "write_noisy"]

_EPS = 1e-9


def write_noisy(folder: Path, n: int, qber: float, blocks: int = 1) -> tuple[Path, Path]:
    """Write two packed recordings of ``blocks`` times ``n`` bits (a multiple of 8) that differ at random."""
    rng = np.random.default_rng([5, n])
    paths = folder / "alice.bin", folder / "bob.bin"
    with paths[0].open("wb") as alice, paths[1].open("wb") as bob:
        for _ in range(blocks):
            bits = rng.integers(0, 256, n // 8, dtype=np.uint8)
            wrong = np.packbits(rng.random(n, dtype=np.float32) < qber)
            alice.write(bits.tobytes())
            bob.write((bits ^ wrong).tobytes())
    return paths


def over_sockets(n: int, qber: float, round_trip_s: float = 0.0, how: Reconciliation = "cascade") -> dict[str, Any]:
    """Return the row of one block of ``n`` bits (a multiple of 8), each end a process with a core to itself.

    Wall time of reconciliation alone, from the seed of its passes to the last correction, set-up included;
    ``round_trip_s``: of a line that delivers late.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = write_noisy(Path(folder), n, qber)
        options = DistillOptions(*paths, _EPS, _EPS, reconciliation=how, round_trip_s=round_trip_s)
        report = asyncio.run(run_distill(options))
    late = f", {1000 * round_trip_s:g} ms round trip" if round_trip_s else ""
    return row(
        f"{how} over sockets, a process for each end{late}", n, report["reconciliation_s"], threads=2, qber=qber,
        efficiency=report["efficiency"], rounds=report["rounds"], exchange_s=report["exchange_s"],
    )  # fmt: skip


def blocks_over_sockets(n: int, qber: float, blocks: int) -> dict[str, Any]:
    """Return the row of ``blocks`` blocks of ``n`` bits, all in flight: wall time of the exchange, from first to last.

    Cascade, verification and the hash of both ends, each a process; ``reconciliation_mbps`` counts from the first seed
    of passes to the last correction, while the hashes of other blocks are made too.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = write_noisy(Path(folder), n, qber, blocks)
        options = DistillOptions(*paths, _EPS, _EPS, block_bits=n, in_flight=blocks)
        report = asyncio.run(run_distill(options))
    seconds = report["exchange_s"]
    return row(
        f"sifted bits to secret key over sockets, {blocks} blocks in flight", n * blocks, seconds, threads=2, qber=qber,
        efficiency=report["efficiency"], rounds=report["rounds"], secret_mbps=report["secret_key_bits"] / seconds / 1e6,
        reconciliation_mbps=report["reconciliation_bps"] / 1e6,
    )  # fmt: skip
