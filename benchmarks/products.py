"""The compiled product of privacy amplification beside GMP's, in one run, with the ratio.

Run as `python benchmarks/products.py`, with --json for one document. Both hash the same key with the same seed
to half its length, conversions of bytes included; processor time of the thread, the best of several. A row for each
width of the compiled one that this machine has, and the shortest length from which it is the faster.
"""

import hashlib
import json
import sys
import time

from heliograph.kernels.native import compiled
from heliograph.kernels.product import modified_multiply_shift

SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
WIDTHS = {1: "AVX2", 2: "AVX-512"}


def seconds(works: list, n: int) -> tuple[list[float], list[bytes]]:
    """Return the least time of one run of each, taken in turns, and the results; of many at once where one is short."""
    at_once, best, results = max(1, 1_000_000 // n), [float("inf")] * len(works), [b""] * len(works)
    for _ in range(5 if n > 10_000_000 else 15):
        for i, work in enumerate(works):
            began = time.thread_time()
            for _ in range(at_once):
                results[i] = work()
            best[i] = min(best[i], (time.thread_time() - began) / at_once)
    return best, results


def stream(name: bytes, size: int) -> bytes:
    """Return bytes that look random and are the same in each run."""
    return hashlib.shake_128(name).digest(size)


def measured(n: int) -> list[dict]:
    key, seed, m = stream(b"key", (n + 7) // 8), stream(b"seed", (2 * n + 5) // 8), n // 2
    works = [lambda: modified_multiply_shift(key, n, seed, m, by="gmp")]
    levels = range(1, compiled.product_level() + 1)
    works += [lambda level=level: compiled.multiply_shift(key, n, seed, m, level) for level in levels]
    (gmp, *ours), (expected, *found) = seconds(works, n)
    assert all(one == expected for one in found), f"another hash of {n} bits"
    memory = compiled.product_memory(n, m) / (n / 8)
    return [{"n": n, "width": WIDTHS[level], "mbps": n / time_ / 1e6, "gmp_mbps": n / gmp / 1e6, "ratio": gmp / time_,
             "memory_over_key": memory} for level, time_ in zip(levels, ours, strict=True)]  # fmt: skip


def main() -> None:
    if compiled is None or not compiled.product_level():
        sys.exit("no compiled product here: it needs the compiled kernels, AVX2 and FMA")
    rows = [row for n in SIZES for row in measured(n)]
    faster = {}
    for width in sorted({row["width"] for row in rows}):
        slower = [row["n"] for row in rows if row["width"] == width and row["ratio"] < 1]
        faster[width] = min(n for n in SIZES if n > max(slower, default=0))
    if "--json" in sys.argv:
        print(json.dumps({"products": rows, "faster_from": faster}))
        return
    for row in rows:
        print(
            f"n {row['n']:9d} {row['width']:8s} {row['mbps']:7.0f} Mb/s   GMP {row['gmp_mbps']:5.0f}"
            f"   ratio {row['ratio']:5.2f}   memory {row['memory_over_key']:4.1f} times the key"
        )
    for width, n in faster.items():
        print(f"{width}: faster from {n} bits on")


if __name__ == "__main__":
    main()
