"""How fast the simulated light is sampled: run as `python benchmarks/simulator.py`.

Prints the rows of `heliograph bench simulator`, each workload with the fastest kernel beside the numpy twin, which
finds the same clicks, and the ratio of the two. Processor time of one core. Above 1 time real time the simulator keeps
up with a real link of that clock.
"""

from heliograph.lab.bench_simulator import simulator


def main() -> None:
    rows = simulator()["results"]
    print(f"{'workload':52} Mclick/s  numpy  ratio  Mpulse/s  times real time")
    for fast, slow in zip(rows[::2], rows[1::2], strict=True):
        print(
            f"{fast['name']:52} {fast['mbps']:8.1f} {slow['mbps']:6.2f} {fast['mbps'] / slow['mbps']:6.1f} "
            f"{fast['pulses_per_second'] / 1e6:9.0f} {fast['times_real_time']:16.2f}"
        )


if __name__ == "__main__":
    main()
