"""Two recorded sifted keys to one secret key: two processes on this host, joined by TCP over loopback, and a report."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import sys
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heliograph import errors
from heliograph.errors import BlockDiscarded, ConfigurationError, HeliographError, TransportClosed
from heliograph.lab.recordings import check_new, read_test_counts
from heliograph.lab.slow_line import SlowLine
from heliograph.postprocessing.amplification import DEFAULT_FAMILY, Family
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.recorded import PhaseSample, Requirements, ValueCounts
from heliograph.protocol.distillation import charging_rule
from heliograph.protocol.registration import Reconciliation
from heliograph.vault.randomness import SystemRandomness

__all__ = ["DistillOptions", "check_agreement", "run_distill"]

# Our choices: a run that takes longer than this has lost one of its processes.
_DEADLINE_S = 900.0
_CLOSE_S = 5.0
_SIDES = (("alice", "reference"), ("bob", "correction"))


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """What the command line said. ``family``: of the hash; ``round_trip_s``: how late the line answers."""

    alice: Path
    bob: Path
    eps_sec: float
    eps_cor: float
    strict: bool = False
    test_counts: Path | None = None
    out_alice: Path | None = None
    out_bob: Path | None = None
    reconciliation: Reconciliation = "cascade"
    family: Family = DEFAULT_FAMILY
    round_trip_s: float = 0.0


@dataclass
class _Process:
    """One side, seen from here. ``path``: its recorded key; ``out``: where its secret key goes, if anywhere."""

    side: str
    path: Path
    out: Path | None
    process: asyncio.subprocess.Process
    failed: dict[str, Any] | None = field(default=None)

    def order(self, name: str, **fields: object) -> None:
        """Send one order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": name, **fields}).encode() + b"\n")

    async def answer(self, name: str) -> dict[str, Any] | None:
        """Return the next answer, or None after an error, which is then in ``failed``."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            text = f"the process for {self.path} ended (exit {await self.process.wait()})"
            self.failed = {"code": "TransportClosed", "message": text, "own": False}
            return None
        answer: dict[str, Any] = json.loads(line)
        if answer["answer"] != name:
            self.failed = answer
            return None
        return answer

    async def end(self) -> None:
        """Let it end: without ``keep`` it takes back what it wrote."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def run_distill(options: DistillOptions) -> dict[str, Any]:
    """Run both sides; return the report. Raises HeliographError in one line if no key can come of it."""
    began = time.monotonic()
    sample = None if options.test_counts is None else read_test_counts(options.test_counts)
    requirements = Requirements(options.eps_sec, options.eps_cor, options.strict, sample)
    _check_outputs(options)
    async with AsyncExitStack() as stack:
        sides = [await _start(stack, *arguments) for arguments in _arguments(options)]
        try:
            async with asyncio.timeout(_DEADLINE_S):
                done = await _distil(stack, sides, requirements, options)
                alice, bob = done
                keys_equal = check_agreement(alice, bob)
                await _write(sides)
        except TimeoutError:
            raise TransportClosed(f"the two sides were not done after {_DEADLINE_S:g} s") from None
    # The slower side's time: the exchange is over when both are done.
    exchange_s = max(one["exchange_s"] for one in done)
    report = _report(
        alice,
        options.reconciliation,
        requirements,
        keys_equal,
        (alice["pid"], bob["pid"]),
        time.monotonic() - began,
        exchange_s,
    )
    return report | _pace(report["sifted_bits"], bob, options)


def check_agreement(alice: dict[str, Any], bob: dict[str, Any]) -> bool:
    """Return True: the sides' keys, compared by a keyed hash, and all their figures are equal.

    Raises BlockDiscarded if any of it differs.
    """
    keys_equal = hmac.compare_digest(alice["check"], bob["check"])
    if not keys_equal or any(alice[name] != bob[name] for name in ("counts", "disclosed", "terms", "rounds")):
        raise BlockDiscarded("the two sides ended with different keys or figures; nothing was written")
    return keys_equal


def _check_outputs(options: DistillOptions) -> None:
    for option, path in (("--out-alice", options.out_alice), ("--out-bob", options.out_bob)):
        if path is not None:
            check_new(path, option)
    if options.out_alice and options.out_bob and options.out_alice.absolute() == options.out_bob.absolute():
        raise ConfigurationError("--out-alice and --out-bob name the same file; give each side its own")


def _arguments(options: DistillOptions) -> list[tuple[str, Path, Path | None]]:
    paths = ((options.alice, options.out_alice), (options.bob, options.out_bob))
    return [(side, path, out) for (_, side), (path, out) in zip(_SIDES, paths, strict=True)]


async def _start(stack: AsyncExitStack, side: str, path: Path, out: Path | None) -> _Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "heliograph.lab.distill_side",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches this process only, which then ends both
    )
    one = _Process(side, path, out, process)
    stack.push_async_callback(one.end)
    return one


async def _distil(
    stack: AsyncExitStack, sides: list[_Process], requirements: Requirements, options: DistillOptions
) -> list[dict[str, Any]]:
    """Return both sides' last answers. Raises what the side that found the trouble said."""
    secret = SystemRandomness().draw(32).hex()
    sample = requirements.sample
    for one in sides:
        one.order(
            "begin",
            side=one.side,
            path=str(one.path),
            eps_sec=requirements.eps_sec,
            eps_cor=requirements.eps_cor,
            strict=requirements.strict,
            sample=[sample.bits, sample.errors] if sample else None,
            secret=secret,
            family=options.family,
            reconciliation=options.reconciliation,
        )
    alice, bob = await _both(sides, "ready")
    if alice["bits"] != bob["bits"]:
        raise ConfigurationError(
            f"{sides[0].path} has {alice['bits']} bits, {sides[1].path} has {bob['bits']}: "
            "two recordings of the same sifted key are needed"
        )
    port = alice["port"]
    if options.round_trip_s > 0:
        line = SlowLine(port, options.round_trip_s / 2)
        stack.push_async_callback(line.close)
        port = await line.open()
    for one in sides:
        one.order("connect", port=port)
    return await _both(sides, "done")


async def _both(sides: list[_Process], name: str) -> list[dict[str, Any]]:
    answers = await asyncio.gather(*(one.answer(name) for one in sides))
    found = [answer for answer in answers if answer is not None]
    if len(found) == len(sides):
        return found
    failures = [one.failed for one in sides if one.failed is not None]
    # The side that found the trouble says it best; the other only saw the first one leave.
    why = next((failure for failure in failures if failure["own"]), failures[0])
    raise _error(why)


def _error(why: dict[str, Any]) -> HeliographError:
    kind = getattr(errors, why["code"], HeliographError)
    error: HeliographError = kind(why["message"])
    return error


async def _write(sides: list[_Process]) -> None:
    """Let the sides that were asked to write their keys, and keep them only when all are on the disk."""
    writers = [one for one in sides if one.out is not None]
    for one in writers:
        one.order("write", path=str(one.out))
        await _both([one], "written")
    for one in writers:
        one.order("keep")


def _report(
    side: dict[str, Any],
    reconciliation: Reconciliation,
    requirements: Requirements,
    keys_equal: bool,  # noqa: FBT001  - a figure of the report
    pids: tuple[int, int],
    elapsed_s: float,
    exchange_s: float,
) -> dict[str, Any]:
    """Return the document; its figures are the ones both sides agreed on."""
    counts, disclosed, terms = ValueCounts(**side["counts"]), side["disclosed"], side["terms"]
    n, qber = counts.total, counts.error_rate
    floor = n * binary_entropy(qber)
    ones_alice, ones_bob = counts.ones_of_each_side
    sample = requirements.sample
    return {
        "sifted_bits": n,
        "qber": qber,
        "error_given_0": counts.error_rate_given(0),
        "error_given_1": counts.error_rate_given(1),
        "bias": ones_alice / n - 0.5,
        "bias_bob": ones_bob / n - 0.5,
        "bias_sigma": terms["bias_sigma"],
        "bias_deducted_bits": terms["bias_deducted_bits"],
        "disclosed_bits": terms["disclosed_bits"],
        "parities_a": disclosed["parities_a"],
        "parities_b": disclosed["parities_b"],
        "verification_bits": disclosed["verification"],
        "reconciliation": reconciliation,
        "two_way_rule": charging_rule(reconciliation),
        "efficiency": disclosed["parities_a"] / floor if floor > 0 else None,
        "verified": True,
        "eps_cor": requirements.eps_cor,
        "eps_sec": requirements.eps_sec,
        "phase_error_upper": terms["phase_error_upper"],
        "secret_key_bits": terms["secret_key_length"],
        "claim": "indicative" if sample else "conditional",
        "policy": "indicative",
        "theorem": "tomamichel2012",
        "assumptions": _assumptions(terms, sample, reconciliation),
        "keys_equal": keys_equal,
        "randomness": SystemRandomness.kind,
        "processes": dict(zip(("alice", "bob"), pids, strict=True)),
        "elapsed_s": elapsed_s,
        "exchange_s": exchange_s,
        "sifted_bps": n / exchange_s if exchange_s > 0 else math.inf,
    }


def _pace(sifted_bits: int, bob: dict[str, Any], options: DistillOptions) -> dict[str, Any]:
    """Return what the correcting side measured of reconciliation alone, set-up and the line's delay included."""
    seconds = bob["reconciliation_s"]
    return {
        "hash": options.family,
        "rounds": bob["rounds"],
        "round_trip_s": options.round_trip_s,
        "reconciliation_s": seconds,
        "reconciliation_bps": sifted_bits / seconds if seconds > 0 else math.inf,
    }


def _assumptions(terms: dict[str, Any], sample: PhaseSample | None, reconciliation: Reconciliation) -> list[str]:
    """Return what the length takes for granted, in the order of security.md 10."""
    phase = (
        "phase error taken as the upper-bounded larger one of the error rates given 0 and given 1, not measured"
        if sample is None
        else f"the test-basis counts, {sample.errors} errors in {sample.bits} bits, are a random sample of the same run"
    )
    bias = terms["bias_deducted_bits"]
    return [
        "single photons, or BBM92",
        phase,
        "basis-independent detection"
        + (f", which a bias of {terms['bias_sigma']:.1f} sigma contradicts: {bias} bits were deducted" if bias else ""),
        "fixed run length; the length of the key follows from observed counts (indicative)",
        "the input was never seen by others",
        "both processes on one host, channel unauthenticated",
        f"two-way rule {charging_rule(reconciliation)}: parities of both directions are charged",
        "the operating system's random generator",
    ]
