"""The fibre process: a third process between the two modules, which carries light and loses most of it.

It pairs the light and the arming of one block id, samples the clicks on a thread, and answers both modules. It knows
both seeds, as nature does; nothing else of a site reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.kernels.expansion import SeededPulses
from heliograph.protocol.module_link import (
    CLICKS_MAX,
    HEADER_BYTES,
    ORDER_BYTES_MAX,
    Arm,
    ClicksReported,
    Light,
    LightSent,
    ModuleError,
    Report,
    decode_order,
    encode_frame,
    frame_length,
    report_clicks,
)
from heliograph.sim.address import Serve, listen
from heliograph.sim.clicks import clicks_upper, sample_clicks
from heliograph.sim.config import FibreConfig
from heliograph.sim.randomness import lab_generator

__all__ = ["Fibre"]

_WAITING_MAX: Final = 64  # our choice: blocks of one module that wait for the other

_Kind = TypeVar("_Kind", Light, Arm)


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[_Kind]):
    """An order, whose line it came on, and when."""

    order: _Kind
    writer: asyncio.StreamWriter
    since: float


class Fibre:
    """The server of both modules. One instance serves until its ``stop`` event."""

    def __init__(self, config: FibreConfig) -> None:
        self._config = config
        self._lights: dict[int, _Waiting[Light]] = {}
        self._arms: dict[int, _Waiting[Arm]] = {}
        self._lines: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._measurements: set[asyncio.Task[None]] = set()
        self._sampler = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fibre")

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Listen, call ``ready``, and serve until ``stop`` is set. Raises ConfigurationError if it cannot listen."""
        config = self._config
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._sampler.shutdown, wait=False, cancel_futures=True)
            for address, serve in (
                (config.transmitter, self._server(Light, self._lights)),
                (config.receiver, self._server(Arm, self._arms)),
            ):
                server = await listen(address, serve)
                if address.path:
                    stack.callback(Path(address.path).unlink, missing_ok=True)
                stack.callback(server.close)
            ready()
            await stop.wait()
            for measurement in self._measurements:
                measurement.cancel()
            for writer in self._lines:
                writer.transport.abort()  # not close(): a module that does not read must not hold us
            ending = [line for line in self._lines.values() if line is not None]
            await asyncio.gather(*ending, *self._measurements, return_exceptions=True)

    def _server(self, kind: type[_Kind], waiting: dict[int, _Waiting[_Kind]]) -> Serve:
        """Return the server of one module, which accepts orders of its kind only."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._lines[writer] = asyncio.current_task()
            try:
                while True:
                    header = await reader.readexactly(HEADER_BYTES)
                    order = decode_order(await reader.readexactly(frame_length(header, ORDER_BYTES_MAX)))
                    if not isinstance(order, kind):
                        raise RemoteProtocolError(f"{order!r} on the line of the other module")  # noqa: TRY301  - one way out
                    await self._take(order, waiting, writer)
            except (asyncio.IncompleteReadError, OSError, RemoteProtocolError):
                pass  # a module that vanishes or breaks the rules loses its line; it connects again
            finally:
                # What this module left behind would never be asked for again.
                for block in [block for block, left in waiting.items() if left.writer is writer]:
                    del waiting[block]
                del self._lines[writer]
                writer.close()

        return serve

    async def _take(self, order: _Kind, waiting: dict[int, _Waiting[_Kind]], writer: asyncio.StreamWriter) -> None:
        if order.block not in waiting and len(waiting) >= _WAITING_MAX:
            await _answer(writer, ModuleError(order.block, f"{_WAITING_MAX} blocks wait for the other module already"))
            return
        # A second order for a waiting block replaces the first, whose caller gave up.
        waiting[order.block] = _Waiting(order, writer, asyncio.get_running_loop().time())
        light, arm = self._lights.get(order.block), self._arms.get(order.block)
        if light is not None and arm is not None:
            del self._lights[order.block], self._arms[order.block]
            measurement = asyncio.create_task(self._measure(light, arm))
            self._measurements.add(measurement)
            measurement.add_done_callback(self._measurements.discard)

    async def _measure(self, light: _Waiting[Light], arm: _Waiting[Arm]) -> None:
        block, parameters = light.order.block, light.order.light
        reports: tuple[Report, Report]
        if parameters != arm.order.light:
            reports = _refused(block, "the two modules were given different light parameters for this block")
        elif clicks_upper(self._config.channel, parameters) > CLICKS_MAX:
            reports = _refused(block, f"a block may have {CLICKS_MAX} clicks at most; use fewer pulses")
        else:
            loop = asyncio.get_running_loop()
            try:
                clicks = await loop.run_in_executor(self._sampler, self._sample, light.order, arm.order)
            except (LocalProtocolError, MemoryError) as error:
                reports = _refused(block, f"the clicks could not be sampled: {error}")
            else:
                reports = LightSent(block), clicks
                if self._config.realtime:
                    over = max(light.since, arm.since) + parameters.pulses / parameters.clock_hz
                    await asyncio.sleep(max(0.0, over - loop.time()))
        await _answer(light.writer, reports[0])
        await _answer(arm.writer, reports[1])

    def _sample(self, light: Light, arm: Arm) -> ClicksReported:
        clicks = sample_clicks(
            self._config.channel,
            SeededPulses(light.light, light.seed),
            arm.seed,
            lab_generator(self._config.lab_seed, light.block),
            self._config.attack,
        )
        return report_clicks(light.block, clicks.slots, clicks.patterns)


def _refused(block: int, reason: str) -> tuple[ModuleError, ModuleError]:
    return ModuleError(block, reason), ModuleError(block, reason)


async def _answer(writer: asyncio.StreamWriter, report: Report) -> None:
    """Send a report; a module that is gone meanwhile has no use for it."""
    with contextlib.suppress(OSError):
        writer.write(encode_frame(report))
        await writer.drain()
