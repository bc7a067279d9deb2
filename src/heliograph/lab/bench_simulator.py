"""``heliograph bench simulator``: how fast the simulated light is sampled, against the clock of a real link."""

from __future__ import annotations

import math
import time
from typing import Any, Final

from heliograph.kernels.cascade import Kernel
from heliograph.kernels.expansion import SeededPulses
from heliograph.kernels.native import KERNELS, compiled
from heliograph.lab.bench_rows import row
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.clicks import clicks_upper, sample_clicks
from heliograph.sim.detectors import LIM_2014, DetectorParameters
from heliograph.sim.randomness import lab_generator
from heliograph.site.setup import plan_registration
from heliograph.types import LightParameters

__all__ = ["simulator"]

_RUNS: Final = 3
_KERNELS: Final[tuple[Kernel | None, ...]] = (None, "numpy")
_FAST: Final = DetectorParameters(0.1, 6e-7, 0.0, 0.0, 0.0)  # neither dead time nor afterpulses


def simulator(
    distances_km: tuple[float, ...] = (5.0, 25.0, 50.0, 75.0),
    probabilities: tuple[float, ...] = (0.12, 1e-2, 1e-4),
    clicks: int = 4_000_000,
) -> dict[str, Any]:
    """Return clicks and pulses per second of processor time.

    At each distance, as planned by ``heliograph site init``; then about ``clicks`` of them at click probabilities of
    the signal, once on detectors without dead time and once on those of LIM_2014. Each with the fastest kernel and with
    numpy (a quarter of the clicks). ``n_bits`` counts clicks; ``times_real_time`` is pulses per second over the clock,
    above 1 it keeps up. ``compiled`` says what the fast rows ran on: without AES instructions it is numpy too.
    """
    results = []
    for distance_km in distances_km:
        light = plan_registration("a--b", ("a", "b"), ("sae-a", "sae-b"), distance_km).for_block(10).light
        channel = Channel(FibreParameters(distance_km=distance_km), LIM_2014)
        results += [_measured(f"clicks at {distance_km:g} km", channel, light, kernel) for kernel in _KERNELS]
    for probability in probabilities:
        for detectors, name in ((_FAST, ""), (LIM_2014, ", dead time and afterpulses")):
            channel = Channel(FibreParameters(distance_km=0.0), detectors)
            signal = -math.log1p(-probability) / channel.eta
            for kernel in _KERNELS:
                light = _light(channel, signal, clicks // 4 if kernel == "numpy" else clicks)
                results.append(_measured(f"click probability {probability:g}{name}", channel, light, kernel))
    fast = compiled is not None and compiled.aes_level() > 0
    return {"stage": "simulator", "kernels": KERNELS, "compiled": fast, "results": results, "failures": []}


def _light(channel: Channel, signal: float, clicks: int) -> LightParameters:
    """Return a block that hardly has more than ``clicks`` clicks."""
    light = LightParameters(10**9, 1e9, (signal, signal / 5), (0.7, 0.3), 0.9, 0.9)
    pulses = max(1, int(clicks / clicks_upper(channel, light) * light.pulses))
    return LightParameters(pulses, light.clock_hz, light.intensities, light.intensity_probabilities, 0.9, 0.9)


def _measured(name: str, channel: Channel, light: LightParameters, kernel: Kernel | None) -> dict[str, Any]:
    best, clicks = float("inf"), 0
    for run in range(_RUNS):
        pulses, generator = SeededPulses(light, bytes([run]) * 32), lab_generator(run)
        began = time.thread_time()
        found = sample_clicks(channel, pulses, bytes(32), generator, kernel=kernel)
        best, clicks = min(best, time.thread_time() - began), len(found.slots)
    rate = light.pulses / best
    suffix = ", numpy" if kernel == "numpy" else ""
    return row(name + suffix, clicks, best, pulses_per_second=rate, times_real_time=rate / light.clock_hz)
