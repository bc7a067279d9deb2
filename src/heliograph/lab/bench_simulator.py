"""``heliograph bench simulator``: how fast the simulated light is sampled, against the clock of a real link."""

from __future__ import annotations

import time
from typing import Any, Final

from heliograph.kernels.expansion import SeededPulses
from heliograph.kernels.native import KERNELS
from heliograph.lab.bench_rows import row
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.clicks import sample_clicks
from heliograph.sim.detectors import LIM_2014
from heliograph.sim.randomness import lab_generator
from heliograph.site.setup import plan_registration

__all__ = ["simulator"]

_RUNS: Final = 3


def simulator(distances_km: tuple[float, ...] = (5.0, 25.0, 50.0, 75.0)) -> dict[str, Any]:
    """Return clicks per second of processor time at each distance, as planned by ``heliograph site init``.

    ``n_bits`` counts clicks; ``times_real_time`` is pulses per second over the clock, above 1 it keeps up.
    """
    results = []
    for distance_km in distances_km:
        light = plan_registration("a--b", ("a", "b"), ("sae-a", "sae-b"), distance_km).for_block(10).light
        channel = Channel(FibreParameters(distance_km=distance_km), LIM_2014)
        best, clicks = float("inf"), 0
        for run in range(_RUNS):
            began = time.thread_time()
            found = sample_clicks(channel, SeededPulses(light, bytes([run]) * 32), bytes(32), lab_generator(run))
            best, clicks = min(best, time.thread_time() - began), len(found.slots)
        real_time = light.pulses / best / light.clock_hz
        results.append(row(f"clicks at {distance_km:g} km", clicks, best, times_real_time=real_time))
    return {"stage": "simulator", "kernels": KERNELS, "results": results, "failures": []}
