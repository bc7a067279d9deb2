"""What several blocks in flight are worth, by ``heliograph distill``'s two processes: at no delay and over a long line.

    python benchmarks/blocks_in_flight.py [--blocks 96] [--bits 10000000] [--qber 0.01] [--round-trip-ms 100]

Prints sifted and secret bits per second of whole exchanges (Cascade, verification, hash, both ends, over sockets), one
block at a time and all at once, and the ratio that the long line leaves. The defaults take about five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from heliograph.lab.bench_sockets import write_noisy
from heliograph.lab.distill import DistillOptions, run_distill

EPS = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=96)
    parser.add_argument("--bits", type=int, default=10_000_000, help="of each block")
    parser.add_argument("--qber", type=float, default=0.01)
    parser.add_argument("--round-trip-ms", type=float, default=100.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_noisy(Path(folder), asked.bits, asked.qber, asked.blocks)
        rates = {}
        print("| blocks at once | round trip, ms | sifted Mb/s | secret Mb/s | most rounds | efficiency |")
        print("|---|---|---|---|---|---|")
        for in_flight, late in ((1, 0.0), (2, 0.0), (4, 0.0), (asked.blocks, 0.0), (asked.blocks, asked.round_trip_ms)):
            options = DistillOptions(
                *paths, EPS, EPS, round_trip_s=late / 1000, block_bits=asked.bits, in_flight=in_flight
            )
            report = asyncio.run(run_distill(options))
            rates[in_flight, late] = report["sifted_bps"]
            secret = report["secret_key_bits"] / report["exchange_s"] / 1e6
            print(
                f"| {in_flight} | {late:g} | {report['sifted_bps'] / 1e6:.1f} | {secret:.1f} | {report['rounds']} |"
                f" {report['efficiency']:.3f} |",
                flush=True,
            )
        best = max(rate for (_, late), rate in rates.items() if not late)
        print(f"over the long line {rates[asked.blocks, asked.round_trip_ms] / best:.2f} of the best without it")


if __name__ == "__main__":
    main()
