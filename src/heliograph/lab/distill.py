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
from heliograph.lab.distill_report import block_report
from heliograph.lab.recordings import check_new, read_test_counts
from heliograph.lab.slow_line import SlowLine
from heliograph.postprocessing.amplification import DEFAULT_FAMILY, Family
from heliograph.postprocessing.reconciliation.charging import SIGMA_MAX
from heliograph.postprocessing.recorded import BITS_MAX, parts
from heliograph.postprocessing.secrecy.recorded import Requirements, bias_sigma, too_biased
from heliograph.protocol.distillation import PeerGaveUp
from heliograph.protocol.registration import Reconciliation
from heliograph.vault.randomness import SystemRandomness

__all__ = ["DistillOptions", "check_agreement", "run_distill"]

# Our choices: a run that takes longer than this has lost one of its processes.
_DEADLINE_S, _SLOWEST_BPS = 900.0, 1e5
_BLOCK_BITS_MIN = 10_000  # smaller blocks hardly ever give a key
_BLOCKS_MAX, _ANSWER_BYTES_MAX = 100_000, 1 << 26  # a block's figures take some 400 bytes
_CLOSE_S = 5.0
_SIDES = (("alice", "reference"), ("bob", "correction"))


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """What the command line said. ``family``: of the hash; ``round_trip_s``: how late the line answers.

    ``block_bits``: into blocks of how many bits the recordings are cut (None: they are one block); ``in_flight``: how
    many of them at once.
    """

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
    block_bits: int | None = None
    in_flight: int = 1


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
    _check_cut(options)
    async with AsyncExitStack() as stack:
        sides = [await _start(stack, *arguments) for arguments in _arguments(options)]
        done = await _distil(stack, sides, requirements, options)
        alice, bob = done
        keys_equal = check_agreement(alice, bob)
        await _write(sides)
    kept = [block for block in alice["blocks"] if not block["discarded"]]
    report = block_report(kept, requirements, options.reconciliation, alice["bias_sigma"])
    report |= {
        "keys_equal": keys_equal,
        "randomness": SystemRandomness.kind,
        "processes": {"alice": alice["pid"], "bob": bob["pid"]},
        "elapsed_s": time.monotonic() - began,
        # The slower side's time: the exchange is over when both are done.
        "exchange_s": max(one["exchange_s"] for one in done),
        "hash": options.family,
        "round_trip_s": options.round_trip_s,
        # What the correcting side measured of reconciliation alone, set-up and the line's delay included.
        "reconciliation_s": bob["reconciliation_s"],
        "blocks": len(alice["blocks"]),
        "blocks_discarded": len(alice["blocks"]) - len(kept),
        "in_flight": min(options.in_flight, len(alice["blocks"])),
    }
    rates = {"sifted_bps": report["exchange_s"], "reconciliation_bps": report["reconciliation_s"]}
    return report | {name: alice["bits"] / seconds if seconds > 0 else math.inf for name, seconds in rates.items()}


def check_agreement(alice: dict[str, Any], bob: dict[str, Any]) -> bool:
    """Return True: the sides' keys, compared by a keyed hash, and all their figures are equal.

    Raises BlockDiscarded if any of it differs, or if no block gave a key.
    """
    pairs = list(zip(alice["blocks"], bob["blocks"], strict=True))
    lost = [pair for pair in pairs if pair[0]["discarded"] and pair[1]["discarded"]]
    if lost and len(lost) == len(pairs):
        # The side that found the trouble says it best.
        own = next(one for one in lost[0] if one["code"] != PeerGaveUp.__name__ or one is lost[0][1])
        raise _error(own | {"message": f"{own['message']}{f' ({len(pairs)} blocks alike)' * (len(pairs) > 1)}"})
    keys_equal = hmac.compare_digest(alice["check"], bob["check"])
    if not keys_equal or any(one != other for one, other in pairs if (one, other) not in lost):
        raise BlockDiscarded("the two sides ended with different keys or figures; nothing was written")
    return keys_equal


def _check_outputs(options: DistillOptions) -> None:
    for option, path in (("--out-alice", options.out_alice), ("--out-bob", options.out_bob)):
        if path is not None:
            check_new(path, option)
    if options.out_alice and options.out_bob and options.out_alice.absolute() == options.out_bob.absolute():
        raise ConfigurationError("--out-alice and --out-bob name the same file; give each side its own")


def _check_cut(options: DistillOptions) -> None:
    if options.block_bits is None:
        return
    if not _BLOCK_BITS_MIN <= options.block_bits <= BITS_MAX // 2:
        raise ConfigurationError(f"--block-bits {options.block_bits}: between {_BLOCK_BITS_MIN} and {BITS_MAX // 2}")
    if options.test_counts is not None:
        raise ConfigurationError(
            "--test-counts are a sample of the whole run, not of a part of it; leave out --block-bits"
        )


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
        limit=_ANSWER_BYTES_MAX,
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
            block_bits=options.block_bits,
            in_flight=options.in_flight,
        )
    alice, bob = await _both(sides, "ready")
    if alice["bits"] != bob["bits"]:
        raise ConfigurationError(
            f"{sides[0].path} has {alice['bits']} bits, {sides[1].path} has {bob['bits']}: "
            "two recordings of the same sifted key are needed"
        )
    blocks = len(parts(alice["bits"], options.block_bits))
    if blocks > _BLOCKS_MAX:
        raise ConfigurationError(f"{blocks} blocks are more than {_BLOCKS_MAX}: give larger ones with --block-bits")
    requirements.of_each(blocks)  # said here, in one line, before anything is begun
    # Of the whole recording: each block shows only its own part of a bias (security.md 10).
    sigma = bias_sigma(alice["bits"], alice["ones"], bob["ones"])
    if blocks > 1 and sigma > SIGMA_MAX and requirements.strict:
        raise BlockDiscarded(too_biased(sigma))
    port = alice["port"]
    if options.round_trip_s > 0:
        line = SlowLine(port, options.round_trip_s / 2)
        stack.push_async_callback(line.close)
        port = await line.open()
    for one in sides:
        one.order("connect", port=port, biased=blocks > 1 and sigma > SIGMA_MAX)
    seconds = _DEADLINE_S + alice["bits"] / _SLOWEST_BPS
    try:
        async with asyncio.timeout(seconds):
            alice_done, bob_done = await _both(sides, "done")
    except TimeoutError:
        raise TransportClosed(f"the two sides were not done after {seconds:g} s") from None
    return [alice | alice_done | {"bias_sigma": sigma}, bob | bob_done]


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
