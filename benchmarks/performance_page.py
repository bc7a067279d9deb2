"""Write the figures of docs/performance.md: run as `python benchmarks/performance_page.py` on a quiet machine.

Everything between the two markers is replaced by what `heliograph bench` measures here and now, with machine and date.
"""

import datetime as dt
import os
import platform
from pathlib import Path

from heliograph.lab.benchmarks import STAGES

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
WANTED = ("reconciliation", "amplification", "sifting", "simulator", "pipeline")
EXTRA = ("rounds", "secret_mbps", "cascade_s", "amplification_s", "times_real_time")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def figure(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def table(report: dict) -> str:
    extra = [name for name in EXTRA if any(name in line for line in report["results"])]
    names = ["name", "n_bits", "qber", "efficiency", "mbps", *extra]
    rows = [[figure(line.get(name)) for name in names] for line in report["results"]]
    return "\n".join("| " + " | ".join(row) + " |" for row in [names, ["---"] * len(names), *rows])


def _head(today: str, load: float) -> str:
    return (
        f"Measured on {today}: {processor()}, {os.cpu_count()} processors, Python {platform.python_version()}, load "
        f"average {load:.1f} at the start. One thread, processor time; `mbps` counts 1e6 input bits (clicks for "
        "sifting and simulator) per second.\n"
    )


def main() -> None:
    load = os.getloadavg()[0]
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    parts = [_head(today, load)]
    for name in WANTED:
        report = STAGES[name]()
        parts.append(f"### {name}, kernels: {report['kernels']}\n\n{table(report)}\n")
        if report["failures"]:
            raise SystemExit("\n".join(report["failures"]))
    text = PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + after)


if __name__ == "__main__":
    main()
