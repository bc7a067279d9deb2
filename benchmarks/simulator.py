"""How fast the simulated light is sampled, as a multiple of real time: run as `python benchmarks/simulator.py`.

Prints one line for each distance: clicks and pulses per second of one core, and pulses per second over the clock. Above
1 the simulator keeps up with a real link of that clock.
"""

import time

from heliograph.kernels.expansion import SeededPulses
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.clicks import sample_clicks
from heliograph.sim.detectors import LIM_2014
from heliograph.sim.randomness import lab_generator
from heliograph.site.setup import plan_registration

RUNS = 3


def main() -> None:
    print("distance_km  clock_hz  pulses      clicks     seconds  Mclick/s  times real time")
    for distance_km in (5.0, 25.0, 50.0, 75.0):
        light = plan_registration("a--b", ("a", "b"), ("sae-a", "sae-b"), distance_km).for_block(10).light
        channel = Channel(FibreParameters(distance_km=distance_km), LIM_2014)
        best, clicks = float("inf"), 0
        for run in range(RUNS):
            began = time.perf_counter()
            found = sample_clicks(channel, SeededPulses(light, bytes([run]) * 32), bytes(32), lab_generator(run))
            best, clicks = min(best, time.perf_counter() - began), len(found.slots)
        rate = light.pulses / best / light.clock_hz
        print(
            f"{distance_km:11.0f}  {light.clock_hz:8.0e}  {light.pulses:.3e}  {clicks:9d}  {best:7.3f}  "
            f"{clicks / best / 1e6:8.1f}  {rate:15.1f}"
        )


if __name__ == "__main__":
    main()
