"""Read the recorded three-state decoy BB84 runs of Ohio State and print gains and error rates per intensity.

    python tools/ohio_counts.py [FILE.mat | FOLDER] [--json]

The files are MATLAB v5 and come from Optical-Quantum-Communication-Theory/Drone-and-Vehicle-based-QKD (MIT), described
in arXiv:2505.17587; they are no part of this repository. Default folder: $HELIOGRAPH_DATA/ohio or ../shared/data/ohio.
Needs scipy (`pip install scipy`; it is among the development dependencies).

What is read, and how each reading is checked against the numbers themselves (``check``):

- 12 rows {general, signal, decoy 1, decoy 2} x {R, L, H}; general has no H. A row holds relative frequencies of the 16
  click patterns of four detectors. Each frequency is a fraction of the row's number of pulses, so that number comes
  back exactly, and where the file has ``totalSignals`` the rows add up to it.
- A pattern reads V H L R from left to right: sending R fires the last detector and hardly the third, and so on.
- ``intensities`` has the nine mean photon numbers in the order of the rows after general: the gains say so.

It stops at the counts. No theorem in this package covers them: Lim, Rusca and Wiesemann need two bases of two states
each, prepared with the same intensities, so that both bases send the same mixture. Here the test basis has H alone, the
receiver chooses its basis passively, and decoy intensities differ from state to state by up to a factor 1.7.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

INTENSITIES = ("general", "signal", "decoy 1", "decoy 2")
STATES = ("R", "L", "H")
DETECTORS = "VHLR"  # of a pattern, left to right
DEFAULT = Path(os.environ.get("HELIOGRAPH_DATA", Path(__file__).parents[2] / "shared/data")) / "ohio"
NOT_COVERED = (
    "no key length: the test basis has one state, and intensities depend on the state; "
    "the theorems here need two bases of two states with equal intensities (security.md 9)"
)


@dataclass(frozen=True)
class Row:
    """All pulses of one intensity and state: how often each of the 16 click patterns came, "0000" to "1111"."""

    intensity: str
    state: str
    mean_photons: float | None
    pulses: int
    patterns: tuple[int, ...]

    def count(self, *, clicked: str, silent: str = "") -> int:
        """Return the pulses on which all detectors of ``clicked`` and none of ``silent`` fired."""
        return sum(
            n
            for code, n in enumerate(self.patterns)
            if all(code >> (3 - DETECTORS.index(x)) & 1 for x in clicked)
            and not any(code >> (3 - DETECTORS.index(x)) & 1 for x in silent)
        )

    @property
    def gain(self) -> float:
        """Return the share of pulses with any click."""
        return 1 - self.patterns[0] / self.pulses


@dataclass(frozen=True)
class Rate:
    """What one state of one intensity gave in its own basis. A double click counts half an error (security.md 9).

    ``gain``: any click per pulse; ``matched``: detections in the state's own basis alone; ``cross``: share of all
    detections with clicks in both bases, which a squashing rule would have to decide.
    """

    intensity: str
    state: str
    mean_photons: float | None
    pulses: int
    gain: float
    matched: int
    errors: float
    double: int
    error_rate: float
    cross: float


class Unreadable(Exception):
    """The file is not one of these recordings."""


def read_rows(path: Path) -> tuple[list[Row], int | None]:
    """Return the rows that are not empty, and the file's total number of pulses if it has one."""
    try:
        from scipy.io import loadmat  # noqa: PLC0415
        from scipy.io.matlab import MatReadError  # noqa: PLC0415
    except ImportError:
        raise Unreadable("MATLAB files need scipy: pip install scipy") from None
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True)
    except (MatReadError, OSError, ValueError, TypeError, NotImplementedError) as why:
        raise Unreadable(f"{path}: not a MATLAB v5 file ({why})") from None
    tables = [content[name] for name in content if name.startswith("ohioData")]
    orders = [content[name] for name in content if name.startswith("ohioOrder")]
    if len(tables) != 1 or len(orders) != 1 or tables[0].shape != (12, 16):
        raise Unreadable(f"{path}: needs one 12 x 16 table ohioData with its ohioOrder")
    if [f"{int(x):04d}" for x in orders[0]] != [f"{i:04b}" for i in range(16)]:
        raise Unreadable(f"{path}: ohioOrder is not the binary order of four detectors")
    means = content.get("intensities")
    total = int(content["totalSignals"]) if "totalSignals" in content else None

    counted: dict[int, tuple[int, ...]] = {}
    for index, frequencies in enumerate(tables[0]):
        if frequencies.any():
            counted[index] = _counts([float(x) for x in frequencies])
    if total is not None:
        _settle_common_factor(counted, total)
    rows = []
    for index, counts in counted.items():
        block, state = divmod(index, 3)
        mean = None if means is None else float(means[max(0, block - 1) * 3 + state])
        rows.append(Row(INTENSITIES[block], STATES[state], mean, sum(counts), counts))
    return rows, total


def _counts(frequencies: list[float]) -> tuple[int, ...]:
    """Return the smallest whole numbers that have these relative frequencies."""
    # Rare patterns only: there a double has digits enough to tell fractions of up to 10^9 pulses apart.
    pulses = math.lcm(*(Fraction(x).limit_denominator(10**9).denominator for x in frequencies if 0 < x < 1e-3))
    counts = tuple(round(x * pulses) for x in frequencies)
    if (
        pulses > 10**10
        or sum(counts) != pulses
        or any(abs(n - x * pulses) > 1e-3 for n, x in zip(counts, frequencies, strict=True))
    ):
        raise Unreadable("a row is no list of relative frequencies of whole counts")
    return counts


def _settle_common_factor(counted: dict[int, tuple[int, ...]], total: int) -> None:
    """Where all counts of one row share a factor, its frequencies do not show it; the file's total does."""
    lacking = total - sum(sum(c) for c in counted.values())
    candidates = [i for i, c in counted.items() if lacking > 0 and lacking % sum(c) == 0]
    if len(candidates) == 1:
        row = candidates[0]
        factor = 1 + lacking // sum(counted[row])
        counted[row] = tuple(n * factor for n in counted[row])


def rate(row: Row) -> Rate:
    """Return what the row's own basis detected."""
    right, wrong, other = {"R": ("R", "L", "VH"), "L": ("L", "R", "VH"), "H": ("H", "V", "LR")}[row.state]
    good = row.count(clicked=right, silent=wrong + other)
    bad = row.count(clicked=wrong, silent=right + other)
    both = row.count(clicked=right + wrong, silent=other)
    matched, errors = good + bad + both, bad + both / 2
    clicks = row.pulses - row.patterns[0]
    crossed = clicks - row.count(clicked="", silent="LR") - row.count(clicked="", silent="VH") + 2 * row.patterns[0]
    return Rate(
        row.intensity,
        row.state,
        row.mean_photons,
        row.pulses,
        row.gain,
        matched,
        errors,
        both,
        errors / matched if matched else 0.0,
        crossed / clicks if clicks else 0.0,
    )


def check(rows: list[Row], total: int | None) -> list[str]:
    """Return what the numbers say against the reading; empty if nothing."""
    against = []
    if total is not None and sum(row.pulses for row in rows) != total:
        against.append(f"the rows have {sum(row.pulses for row in rows)} pulses, the file says {total}")
    against += [
        f"{row.intensity} {row.state}: its own detector is not the one that fires"
        for row in rows
        if row.intensity in ("general", "signal", "decoy 1") and rate(row).error_rate > 0.11
    ]
    by_name = {(row.intensity, row.state): row for row in rows}
    for state in STATES:
        signal, weaker = by_name["signal", state], by_name["decoy 1", state]
        if signal.mean_photons is None or weaker.mean_photons is None:
            continue
        dark = math.log1p(-by_name["decoy 2", state].gain)
        seen = (math.log1p(-weaker.gain) - dark) / (math.log1p(-signal.gain) - dark)
        told = weaker.mean_photons / signal.mean_photons
        if abs(seen / told - 1) > 0.10:
            against.append(f"decoy 1 {state}: gains in the ratio {seen:.3f}, intensities {told:.3f}")
    return against


def main() -> int:
    """Print every file's table; exit 1 if one cannot be read or contradicts the reading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    files = sorted(chosen.path.glob("*.mat")) if chosen.path.is_dir() else [chosen.path]
    if not files:
        print(f"{chosen.path}: no recordings here; set HELIOGRAPH_DATA or name a file", file=sys.stderr)
        return 1
    report, good = [], True
    for path in files:
        try:
            rows, total = read_rows(path)
        except Unreadable as why:
            print(f"{path.name}: {why}", file=sys.stderr)
            good = False
            continue
        against = check(rows, total)
        good = good and not against
        rates = [rate(row) for row in rows]
        report.append({"file": path.name, "against": against, "rates": [asdict(r) for r in rates]})
        if not chosen.json:
            _print_table(path.name, rates, total, against)
    if chosen.json:
        print(json.dumps({"recordings": report, "claim": NOT_COVERED}))
    else:
        print(NOT_COVERED)
    return 0 if good else 1


def _print_table(name: str, rates: list[Rate], total: int | None, against: list[str]) -> None:
    said = "no total in the file" if total is None else f"the file says {total:,}"
    print(f"{name}: {sum(r.pulses for r in rates):,} pulses, {said}")
    print("  intensity state  photons        pulses        gain   matched     errors  error rate  both bases")
    for r in rates:
        mean = "-" if r.mean_photons is None else f"{r.mean_photons:.4f}"
        print(
            f"  {r.intensity:<9} {r.state:<5} {mean:>8} {r.pulses:>13,} {r.gain:>11.4e} {r.matched:>9,} "
            f"{r.errors:>10,.1f} {r.error_rate:>10.2%} {r.cross:>11.2%}"
        )
    for line in against:
        print(f"  AGAINST THE READING: {line}")
    print()


if __name__ == "__main__":
    sys.exit(main())
