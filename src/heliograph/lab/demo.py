"""The main job end to end: three processes, a payload through the tunnel, and a report of what was measured."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliograph.errors import ConfigurationError, HeliographError, TransportClosed
from heliograph.lab.cleartext import PayloadIndex
from heliograph.lab.hosts import HostB, send
from heliograph.lab.progress import Progress
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.lab.report import build_report
from heliograph.lab.wiretap import Wiretap
from heliograph.status import SiteStatus
from heliograph.testing.randomness import SeededRandom
from heliograph.vault.randomness import SystemRandomness

__all__ = ["DemoOptions", "check", "run_demo", "working_directory"]

_HOST = "127.0.0.1"
# Our choices.
_PAYLOAD_BYTES = 24 << 20
_PAYLOAD_BYTES_MAX = 1 << 30  # our choice: payload and recordings are searched in memory
_REKEY_BYTES = 4 << 20
_REKEY_SECONDS = 2.0
_SMALL_BYTES = 1 << 20
_SMALL_REKEY_SECONDS = 0.5
_SMALL_TRAFFIC_S = 2.0
_DEADLINE_S = 180.0
_PACED_BYTES_PER_S = 8e6
_POLL_S = 0.25
_LAST_WORDS_S = 0.5


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line said."""

    payload: Path | None
    seconds: float | None
    distance_km: float
    bootstrap: str
    seed: int | None
    keep: Path | None
    stay: bool
    quiet: bool
    decoys: int = 1
    cipher: str = "aes-256-gcm"


@dataclass(slots=True)
class _Outcome:
    """What was measured while the payload crossed."""

    first_key_s: float = 0.0
    first_encrypted_byte_s: float = 0.0
    passes: int = 0
    wall_s: float = 0.0
    traffic_s: float = 0.0
    answers: frozenset[str] = frozenset()


def _load(options: DemoOptions) -> bytes:
    if options.payload is None:
        source = SystemRandomness() if options.seed is None else SeededRandom(options.seed, "payload")
        return source.draw(_PAYLOAD_BYTES)
    try:
        with options.payload.open("rb") as file:
            payload = file.read(_PAYLOAD_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{options.payload}: {error.strerror}; name a file that can be read") from None
    if len(payload) > _PAYLOAD_BYTES_MAX:
        raise ConfigurationError(f"{options.payload}: more than {_PAYLOAD_BYTES_MAX >> 20} MiB; send a smaller file")
    if not payload:
        raise ConfigurationError(
            f"{options.payload}: the file is empty; there would be nothing to see crossing; name another"
        )
    return payload


def check(options: DemoOptions) -> None:
    """Raise ConfigurationError naming the option that cannot be."""
    if not 0 <= options.distance_km <= 1000:
        raise ConfigurationError(f"--distance-km {options.distance_km}: give a length between 0 and 1000 km")
    if options.decoys not in (1, 2):
        raise ConfigurationError(f"--decoys {options.decoys}: give 1 or 2")
    if options.seed is not None and options.seed < 0:
        raise ConfigurationError(f"--seed {options.seed}: give a number from 0 on")
    if options.seconds is not None and not 0 < options.seconds <= 86_400:
        raise ConfigurationError(f"--seconds {options.seconds}: give a time between 0 and 86400 s")


async def run_demo(options: DemoOptions) -> dict[str, Any]:
    """Run the demo; return the report's document. Raises HeliographError in one line if it cannot be run."""
    began = time.monotonic()
    check(options)
    payload = _load(options)
    directory = working_directory(options.keep)
    # Rekeys are to be seen on small files too: these are sent slowly and rekeyed often.
    small = len(payload) < _SMALL_BYTES
    limits = {
        "rekey_seconds": _SMALL_REKEY_SECONDS if small else _REKEY_SECONDS,
        "rekey_bytes": max(1 << 16, min(_REKEY_BYTES, len(payload) // 4)),
    }
    limits = {**limits, "max_key_age_s": 30.0}
    cipher = {} if options.cipher == "aes-256-gcm" else {"cipher": options.cipher}
    rehearsal = Rehearsal(
        directory,
        Ports.free(),
        options.distance_km,
        options.seed,
        {**limits, **cipher},
        decoys=options.decoys,
        bootstrap=options.bootstrap,
    )
    async with AsyncExitStack() as stack:
        if options.keep is None:
            stack.callback(rehearsal.remove)
        stop = _stop_on_signals()
        progress = stack.enter_context(Progress(enabled=not options.quiet))
        registration = rehearsal.prepare()
        taps = await _start_taps(rehearsal, stack)
        host_b = HostB()
        await host_b.start(_HOST, rehearsal.ports.host_b)
        stack.push_async_callback(host_b.close)
        stack.push_async_callback(rehearsal.stop_all)
        progress.say("starting site A, site B and the simulated fibre: three processes")
        await rehearsal.start_all()
        work = asyncio.create_task(_carry(rehearsal, host_b, payload, options, progress, began))
        outcome = await _unless_stopped(work, stop, rehearsal)
        pids = rehearsal.pids()
        a, b = await _settled(rehearsal)
        if options.stay:
            progress.say("both sites stay up; Ctrl-C ends them")
            stay = _stop_on_signals()
            await stay.wait()
        await rehearsal.stop_all()
        for tap in taps:
            await tap.close()
        seen = await asyncio.to_thread(_cleartext, payload, taps)
        return build_report(
            options=options,
            blocks=registration.for_block(1),
            steady=registration.for_block(10**6),
            outcome=outcome,
            sites=(a, b),
            payload=payload,
            cleartext=seen,
            recorded=sum(tap.bytes_seen for tap in taps),
            pids=pids,
            total_s=time.monotonic() - began,
        )


async def _unless_stopped(work: asyncio.Task[_Outcome], stop: asyncio.Event, rehearsal: Rehearsal) -> _Outcome:
    """Return what ``work`` measured. Raises TransportClosed on a signal, or when one of the processes ends."""
    stopped, ended = asyncio.create_task(stop.wait()), asyncio.create_task(rehearsal.first_end())
    try:
        await asyncio.wait({work, stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        if work.done() and work.exception() is not None:
            await asyncio.wait({ended}, timeout=_LAST_WORDS_S)  # its cause, if a process died under it
        if ended.done():
            raise TransportClosed(ended.result())
        if not work.done():
            raise TransportClosed("stopped by a signal before the payload was across")
        return work.result()
    finally:
        for task in (work, stopped, ended):
            task.cancel()
        await asyncio.gather(work, stopped, ended, return_exceptions=True)


def working_directory(keep: Path | None) -> Path:
    """Make the directory of a rehearsal. Raises ConfigurationError if there is one already."""
    if keep is None:
        # Short, since Unix sockets live below it, and private: mkdtemp makes it 0700.
        return Path(tempfile.mkdtemp(prefix="heliograph-"))
    try:
        keep.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise ConfigurationError(f"--keep {keep}: {error.strerror}; name a directory that does not exist yet") from None
    return keep.absolute()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _start_taps(rehearsal: Rehearsal, stack: AsyncExitStack) -> list[Wiretap]:
    """Everything that crosses between the sites crosses a recorder."""
    record = rehearsal.directory / "record"
    record.mkdir(mode=0o700)
    ports, taps = rehearsal.ports, []
    for name, listen, target in (
        ("classical", ports.classical_tap, ports.classical),
        ("control", ports.control_tap, ports.control),
        ("tunnel", ports.tunnel_tap, ports.tunnel),
    ):
        tap = Wiretap(name, record)
        await tap.start((_HOST, listen), (_HOST, target))
        stack.push_async_callback(tap.close)
        taps.append(tap)
    return taps


async def _carry(
    rehearsal: Rehearsal, host_b: HostB, payload: bytes, options: DemoOptions, progress: Progress, began: float
) -> _Outcome:
    """Send the payload, once or until the time is over, and watch."""
    outcome, answers = _Outcome(), set[str]()
    watcher = asyncio.create_task(_watch(rehearsal, host_b, len(payload), outcome, progress, began))
    deadline = _DEADLINE_S + (options.seconds or 0.0) + len(payload) / 1e6
    # Traffic for a given time is paced, so that the recording stays small and the link has the processor too.
    pace = None if options.seconds is None else _PACED_BYTES_PER_S
    if pace is None and len(payload) < _SMALL_BYTES:
        pace = len(payload) / _SMALL_TRAFFIC_S
    try:
        async with asyncio.timeout(deadline):
            await _until_encrypting(rehearsal)
            traffic_began = time.monotonic()
            while True:
                answers.add(await send(_HOST, rehearsal.ports.inner, payload, pace))
                outcome.passes += 1
                outcome.traffic_s = time.monotonic() - traffic_began
                if options.seconds is None or outcome.traffic_s >= options.seconds:
                    break
    except TimeoutError:
        status = await rehearsal.status("site_a")
        raise TransportClosed(
            f"the payload was not across after {deadline:g} s; link: {status.link.state}; {status.link.last_discard}"
        ) from None
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    outcome.answers = frozenset(answers)
    outcome.wall_s = time.monotonic() - began
    return outcome


async def _until_encrypting(rehearsal: Rehearsal) -> None:
    """Wait for the tunnel's first key; a host that connects earlier would only wait in its place."""
    while True:
        status = await rehearsal.status("site_a")
        if status.agent is not None and status.agent["key_id"] is not None:
            return
        await asyncio.sleep(0.05)


async def _watch(
    rehearsal: Rehearsal, host_b: HostB, size: int, outcome: _Outcome, progress: Progress, began: float
) -> None:
    async def first_byte() -> None:
        await host_b.first_byte.wait()
        outcome.first_encrypted_byte_s = time.monotonic() - began

    first = asyncio.create_task(first_byte())
    try:
        while True:
            with suppress(HeliographError):
                a, b = await asyncio.gather(rehearsal.status("site_a"), rehearsal.status("site_b"))
                if not outcome.first_key_s and a.link.blocks:
                    outcome.first_key_s = time.monotonic() - began
                progress.show(a, b, host_b.progress, size)
            await asyncio.sleep(_POLL_S if outcome.first_key_s else 0.05)
    finally:
        first.cancel()


async def _settled(rehearsal: Rehearsal) -> tuple[SiteStatus, SiteStatus]:
    """Read both sites' figures when they agree on their blocks, or after a few seconds as they are."""
    for _ in range(100):
        a, b = await asyncio.gather(rehearsal.status("site_a"), rehearsal.status("site_b"))
        if a.link.blocks == b.link.blocks:
            break
        await asyncio.sleep(0.05)
    return a, b


def _cleartext(payload: bytes, taps: list[Wiretap]) -> int:
    strict, tolerant = PayloadIndex(payload), PayloadIndex(payload, distinct=2)
    return sum((tolerant if tap.name == "classical" else strict).covered(tap.files) for tap in taps)
