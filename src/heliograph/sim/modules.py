"""The simulated QKD modules of a site: the entry points ``simulated-transmitter`` and ``simulated-receiver``.

Each talks to the fibre process over the module link and to nobody else; the two never share a process in the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar

import numpy as np

from heliograph.errors import ConfigurationError, RemoteProtocolError
from heliograph.kernels.expansion import SEED_BYTES, SeededPulses, expand_bases
from heliograph.ports import RandomSource, Receiver, Transmitter
from heliograph.protocol.module_link import Arm, ClicksReported, Light, LightSent, Report
from heliograph.sim.address import parse_address
from heliograph.sim.detectors import LIM_2014, dead_slots
from heliograph.sim.line import ModuleLine
from heliograph.types import BlockId, DetectionRecord, LightParameters, Marks, PulseRecord

__all__ = ["SimulatedReceiver", "SimulatedTransmitter", "open_receiver", "open_transmitter"]

_DOUBLE_CLICK: Final = 3

_Report = TypeVar("_Report", LightSent, ClicksReported)


async def open_transmitter(settings: Mapping[str, object], randomness: RandomSource) -> Transmitter:
    """Connect the transmitter's module. Settings: ``address``, where the fibre listens for the transmitter.

    Raises ConfigurationError for settings that cannot be used, TransportClosed if no fibre listens there.
    """
    line = _line(settings, {"address"})
    await line.connect()
    return SimulatedTransmitter(line, randomness)


async def open_receiver(settings: Mapping[str, object], randomness: RandomSource) -> Receiver:
    """Connect the receiver's module. Settings: ``address``, and ``dead_time_s`` (default: that of LIM_2014).

    ``dead_time_s`` is what the module enforces, whatever the detectors do: at least theirs. Raises as
    ``open_transmitter``.
    """
    line = _line(settings, {"address", "dead_time_s"})
    dead_time_s = settings.get("dead_time_s", LIM_2014.dead_time_s)
    if isinstance(dead_time_s, bool) or not isinstance(dead_time_s, (int, float)) or not 0 <= dead_time_s <= 1:
        raise ConfigurationError(f"dead_time_s = {dead_time_s!r}: write seconds between 0 and 1, such as 1e-6")
    await line.connect()
    return SimulatedReceiver(line, randomness, float(dead_time_s))


class SimulatedTransmitter:
    """Sends light into the fibre process. Implements ``ports.Transmitter``."""

    def __init__(self, line: ModuleLine, randomness: RandomSource) -> None:
        self._line = line
        self._randomness = randomness

    async def emit(self, block: BlockId, light: LightParameters) -> PulseRecord:
        """Send the light of a fresh seed; return once the receiver's module measured the whole block.

        Raises TransportClosed if the fibre is gone, RemoteProtocolError if it refuses the block (the two modules
        were given different light parameters, or the block has too many clicks).
        """
        seed = self._randomness.draw(SEED_BYTES)
        _expect(await self._line.ask(Light(block=block, light=light, seed=seed)), LightSent)
        return SeededPulses(light, seed)

    async def close(self) -> None:
        """Release the line to the fibre."""
        await self._line.close()


class SimulatedReceiver:
    """Measures light from the fibre process. Implements ``ports.Receiver``."""

    def __init__(self, line: ModuleLine, randomness: RandomSource, dead_time_s: float) -> None:
        self._line = line
        self._randomness = randomness
        self._dead_time_s = dead_time_s

    async def collect(self, block: BlockId, light: LightParameters) -> DetectionRecord:
        """Measure one block in freshly drawn bases and make its record (security.md 9). Raises as ``emit`` does."""
        seed = self._randomness.draw(SEED_BYTES)
        report = _expect(await self._line.ask(Arm(block=block, light=light, seed=seed)), ClicksReported)
        slots, patterns = report.arrays(light.pulses)

        # (1) A click within the dead time of the physical click before it, kept or not, is ignored: one detector was
        #     still dead, and which one is live tells an attacker the bit (Weier et al. 2011).
        alive = np.ones(len(slots), dtype=bool)
        alive[1:] = np.diff(slots) > dead_slots(self._dead_time_s, light.clock_hz)
        slots, patterns = slots[alive], patterns[alive]

        # (2) A double click gets a random bit of our own, in both bases; nothing is dropped.
        bits = patterns >> np.uint8(1)
        doubles = np.flatnonzero(patterns == _DOUBLE_CLICK)
        bits[doubles] = self._random_bits(len(doubles))

        return DetectionRecord(
            light=light,
            slots=slots,
            bases=expand_bases(seed, slots, light.receiver_z_probability),
            bits=bits,
            double_clicks=len(doubles),
            dead_time_clicks=len(alive) - len(slots),
        )

    async def close(self) -> None:
        """Release the line to the fibre."""
        await self._line.close()

    def _random_bits(self, count: int) -> Marks:
        drawn = self._randomness.draw((count + 7) // 8) if count else b""
        return np.unpackbits(np.frombuffer(drawn, dtype=np.uint8), count=count)


def _line(settings: Mapping[str, object], known: AbstractSet[str]) -> ModuleLine:
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise ConfigurationError(f"unknown setting {unknown[0]!r} of a simulated module; known: {sorted(known)}")
    return ModuleLine(parse_address(settings.get("address"), "address"))


def _expect(report: Report, kind: type[_Report]) -> _Report:
    if not isinstance(report, kind):
        raise RemoteProtocolError(f"the fibre answered {report!r} where {kind.__name__} was due")
    return report
