"""``heliograph bench reconciliation | amplification | sifting | pipeline``: how fast clicks become key.

But for the rows "over sockets" all of it is in this process, on one thread; both ends where two ends work. Times are
the processor time of the thread, so that other programs on the machine, and threads that a numerical library starts and
lets spin, disturb as little as they can; ``mbps`` counts input bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from heliograph.bits import BitString
from heliograph.kernels.native import KERNELS
from heliograph.kernels.product import MULTIPLIER
from heliograph.kernels.toeplitz import toeplitz
from heliograph.lab.bench_rows import row
from heliograph.lab.bench_sockets import blocks_over_sockets, over_sockets
from heliograph.postprocessing.amplification import amplify, seed_size_bytes
from heliograph.postprocessing.reconciliation.answering import Answerer
from heliograph.postprocessing.reconciliation.correcting import Corrected, Corrector
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.mirror import FEW_ROUNDS, PATIENT, Pace
from heliograph.postprocessing.reconciliation.one_way import Finder, Source
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.sifting import bits_in_test, sift
from heliograph.postprocessing.verification import verification_tag
from heliograph.protocol.registration import Reconciliation
from heliograph.types import Disclosed, IntensityCounts, VerifiedBlock

__all__ = ["amplification", "pipeline", "reconciliation", "sifting"]

_SEED: Final = bytes(range(32))  # of passes and hashes: a benchmark has no secrets
_LARGE: Final = 10_000_000


def _cpu(work: Callable[[], object], runs: int = 3) -> float:
    best = float("inf")
    for _ in range(runs):
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
    return best


def _noisy(n: int, qber: float) -> tuple[BitString, BitString]:
    rng = np.random.default_rng([1, n])
    bits = rng.integers(0, 2, n, dtype=np.uint8)
    return BitString.from_array(bits), BitString.from_array(bits ^ (rng.random(n, dtype=np.float32) < qber))


def _document(stage: str, results: list[dict[str, Any]], failures: list[str]) -> dict[str, Any]:
    return {"stage": stage, "kernels": KERNELS, "product": MULTIPLIER, "results": results, "failures": failures}


def _reconcile(alice: BitString, bob: BitString, qber: float, pace: Pace) -> tuple[Answerer, Corrected]:
    limits = Limits(parities=4 * len(alice) + 10_000, rounds=100_000)
    answerer = Answerer(alice, _SEED, qber, limits, pace=pace)
    corrector = Corrector(bob, _SEED, qber, limits, pace=pace)
    step: BitString | Corrected = corrector.first_parities()
    while not isinstance(step, Corrected):
        step = corrector.advance(answerer.answer(step))
    return answerer, step


def _one_way(n: int, qber: float, failures: list[str]) -> dict[str, Any]:
    """Return the row of one-way reconciliation: syndrome and search, second rounds included; codes are built before."""
    alice, bob = _noisy(n, qber)
    limits = Limits(parities=4 * n + 10_000)
    done: list[tuple[Source, BitString | Corrected]] = []

    def both() -> None:
        source, finder = Source(alice, qber, limits), Finder(bob, qber, limits)
        result = finder.take(source.first())
        if not isinstance(result, Corrected):
            result = finder.take(source.more(result))
        done.append((source, result))

    seconds = _cpu(both)
    source, result = done[-1]
    if not isinstance(result, Corrected) or result.bits != alice:
        failures.append(f"{n} bits at {qber:.0%} were not corrected one way")
    true = float((alice ^ bob).to_array().mean())
    efficiency = source.disclosed.parities_a / (n * binary_entropy(true))
    rounds = result.rounds if isinstance(result, Corrected) else 2
    return row("ldpc, one way, both ends", n, seconds, qber=qber, efficiency=efficiency, rounds=rounds)


def reconciliation(
    sizes: tuple[int, ...] = (65_536, 1_000_000, _LARGE),
    sockets: tuple[tuple[int, float, float, Reconciliation], ...] = (
        (1_000_000, 0.01, 0.0, "cascade"),
        (_LARGE, 0.01, 0.0, "cascade"),
        (_LARGE, 0.02, 0.0, "cascade"),
        (_LARGE, 0.01, 0.1, "cascade"),
        (_LARGE, 0.01, 0.0, "ldpc"),
        (_LARGE, 0.01, 0.1, "ldpc"),
    ),
) -> dict[str, Any]:
    """Return the speed and efficiency of Cascade, both ends, at several paces, and of one-way codes.

    ``sockets``: (bits, error rate, round trip in seconds, how) of the runs between two processes.
    """
    results, failures = [], []
    for n in sizes:
        for qber in (0.01, 0.02, 0.03, 0.05):
            for name, pace in (("few rounds", FEW_ROUNDS), ("patient", PATIENT)):
                if n == _LARGE and (pace is PATIENT or qber not in (0.01, 0.03)):
                    continue
                alice, bob = _noisy(n, qber)
                done: list[tuple[Answerer, Corrected]] = []
                seconds = _cpu(
                    lambda a=alice, b=bob, q=qber, p=pace, d=done: d.append(_reconcile(a, b, q, p)),  # type: ignore[misc]
                    1 if n == _LARGE else 3,
                )
                answerer, corrected = done[-1]
                true = float((alice ^ bob).to_array().mean())
                efficiency = answerer.parities / (n * binary_entropy(true))
                if corrected.bits != alice:
                    failures.append(f"{n} bits at {qber:.0%} were not corrected")
                if efficiency < 1 and n >= 1_000_000:
                    failures.append(f"an efficiency of {efficiency:.3f} at {qber:.0%}: something was not counted")
                results.append(
                    row(f"cascade, both ends, {name}", n, seconds, qber=qber, efficiency=efficiency,
                        rounds=corrected.rounds)
                )  # fmt: skip
    results += [_one_way(n, qber, failures) for n in sizes if n < _LARGE for qber in (0.01, 0.02, 0.03, 0.05)]
    results += [over_sockets(*run) for run in sockets]
    return _document("reconciliation", results, failures)


def _verified(bits: BitString) -> VerifiedBlock:
    counts = IntensityCounts((len(bits),), (0,))
    return VerifiedBlock(bits, counts, counts, Disclosed())


def amplification(sizes: tuple[int, ...] = (100_000, 1_000_000, _LARGE, 10 * _LARGE)) -> dict[str, Any]:
    """Return the speed of both hashes, one end, to half the length."""
    results = []
    rng = np.random.default_rng(2)
    for n in sizes:
        block = _verified(BitString(rng.bytes(n // 8), n))
        seed = rng.bytes(seed_size_bytes(n))
        seconds = _cpu(lambda b=block, s=seed, n=n: amplify(b, s, n // 2), 1 if n > _LARGE else 3)  # type: ignore[misc]
        results.append(row("modified multiply-shift, one end", n, seconds))
    for n in sizes[:2]:
        key, bits = rng.integers(0, 2, n, dtype=np.uint8), rng.integers(0, 2, 3 * n // 2 - 1, dtype=np.uint8)
        results.append(row("Toeplitz, one end", n, _cpu(lambda k=key, b=bits, n=n: toeplitz(k, b, n // 2), 1)))  # type: ignore[misc]
    return _document("amplification", results, [])


def _detections(clicks: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(3)
    bases_a, bases_b = (rng.random(clicks, dtype=np.float32) < 0.1 for _ in range(2))
    bits = rng.integers(0, 2, clicks, dtype=np.uint8)
    noisy = bits ^ (rng.random(clicks, dtype=np.float32) < 0.01)
    kinds = (rng.random(clicks, dtype=np.float32) < 0.2).astype(np.uint8)
    return bases_a.astype(np.uint8), bits, bases_b.astype(np.uint8), noisy.astype(np.uint8), kinds


def sifting(clicks: int = _LARGE) -> dict[str, Any]:
    """Return the speed of sifting, both ends, with the counts for each intensity; a "bit" is a click."""
    bases_a, bits_a, bases_b, bits_b, kinds = _detections(clicks)
    test_a, test_b = bits_in_test(bases_a, bits_a, bases_b), bits_in_test(bases_b, bits_b, bases_a)

    def both() -> None:
        sift(bases_a, bits_a, bases_b, kinds, test_b, 2)
        sift(bases_b, bits_b, bases_a, kinds, test_a, 2)

    return _document("sifting", [row("sift, both ends, counts by intensity", clicks, _cpu(both))], [])


def pipeline(n: int = _LARGE, blocks: int = 8) -> dict[str, Any]:
    """Return the speed from sifted bits to secret key, both ends on one thread: Cascade, verification, hash.

    Then the same between two processes with ``blocks`` blocks in flight. The length is an example, 0.655 (1 - h(1.1 Q))
    0.97 n - leak, not a theorem's: it only sets the compression. Between two processes it is ``distill``'s.
    """
    results, failures = [], []
    for qber in (0.005, 0.01, 0.02, 0.03):
        alice, bob = _noisy(n, qber)
        seed = np.random.default_rng(4).bytes(seed_size_bytes(n))
        began = time.thread_time()
        answerer, corrected = _reconcile(alice, bob, qber, FEW_ROUNDS)
        reconciled = time.thread_time()
        equal = verification_tag(alice, _SEED) == verification_tag(corrected.bits, _SEED)
        verified = time.thread_time()
        length = int(0.655 * (1 - binary_entropy(1.1 * qber)) * 0.97 * n) - answerer.parities
        keys = [amplify(_verified(bits), seed, length).bits for bits in (alice, corrected.bits)]
        ended = time.thread_time()
        if not equal or keys[0] != keys[1]:
            failures.append(f"the keys at {qber:.1%} differ")
        seconds = ended - began
        results.append(
            row("sifted bits to secret key, both ends", n, seconds, qber=qber,
                efficiency=answerer.parities / (n * binary_entropy(qber)), secret_mbps=length / seconds / 1e6,
                cascade_s=reconciled - began, verification_s=verified - reconciled, amplification_s=ended - verified)
        )  # fmt: skip
    results += [blocks_over_sockets(n, qber, blocks) for qber in (0.01, 0.02)]
    return _document("pipeline", results, failures)
