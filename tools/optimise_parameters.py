"""Find the light that gives the most key per pulse, for each block size and loss, and write the table.

    python tools/optimise_parameters.py [--workers 2] [--decoys 1|2]

The figure of merit is the preset length of the fixed policy, thresholds and margins included, over the pulses of the
block; the link is the default one (``fibre_link``). With two decoys the grid is coarser, and the weakest intensity is
that of Lim et al. 2014, Fig. 1: an attenuator's leak, not a vacuum nobody can promise. ``--decoys`` makes the lines of
that many decoys anew and keeps the others as they stand. Needs scipy. Deterministic.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

from scipy.optimize import differential_evolution

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.acceptance import preset_length
from heliograph.postprocessing.secrecy.link import LinkModel, fibre_link
from heliograph.postprocessing.secrecy.planning import DEFAULT_EPS, Margin, acceptance_for, light_for
from heliograph.postprocessing.secrecy.table import LightChoice
from heliograph.postprocessing.secrecy.theorems import theorem_for
from heliograph.types import LightParameters

TABLE = Path(__file__).parent.parent / "src/heliograph/postprocessing/secrecy/table.toml"
GRID = {  # block sizes and losses in dB, by decoys
    1: ((30_000, 100_000, 300_000, 1_000_000, 10_000_000), tuple(2.5 * i for i in range(21))),
    2: ((30_000, 100_000, 300_000, 1_000_000, 10_000_000), tuple(5.0 * i for i in range(9))),
}
# signal, decoy over signal, p_signal, p_z; with two decoys the first one's share of what is no signal
BOUNDS = ((0.02, 0.95), (0.02, 0.80), (0.02, 0.98), (0.50, 0.98), (0.05, 0.98))
WEAKEST = 2e-4
DIGITS = 3

_HEAD = (
    "# Written by tools/optimise_parameters.py; not to be edited.\n"
    "# target_bits: expected sifted bits, both bases together. loss_db: fibre, receiver and detector efficiency.\n"
    "# Link: fibre_link(): dark counts 6e-7, afterpulses 4 %, misalignment 0.5 %, dead time, decay 1 us, 1 GHz.\n"
    f"# eps_sec = eps_cor = {DEFAULT_EPS}, policy fixed, default margins. No line: no key. No decoys: one.\n"
)
_MARK = {1: "", 2: "decoys = 2, "}  # how a line begins; without a mark it is one decoy
Job = tuple[int, int, float]  # decoys, target_bits, loss_db


def choice_at(point: Sequence[float]) -> LightChoice:
    """Read the optimiser's point: the decoy is a fraction of the signal, so that it always stays below."""
    signal, ratio, p_signal, p_z, *shares = (float(x) for x in point)
    return LightChoice(
        round(signal, DIGITS),
        round(signal * ratio, DIGITS),
        round(p_signal, DIGITS),
        round(p_z, DIGITS),
        *(value for share in shares for value in (round((1 - p_signal) * share, DIGITS), WEAKEST)),
    )


def evaluate(link: LinkModel, target_bits: int, choice: LightChoice) -> tuple[LightParameters, int]:
    """Return the light and its preset length, which is negative where there is no key."""
    light = light_for(link, target_bits, choice)
    theorem = theorem_for(choice.decoys)
    theorem.check_light(light)
    acceptance = acceptance_for(theorem, link, light, DEFAULT_EPS, Margin())
    return light, preset_length(theorem, acceptance, DEFAULT_EPS, DEFAULT_EPS)


def cost(point: Sequence[float], link: LinkModel, target_bits: int) -> float:
    """Minus the key per million pulses; a block without key is ranked by what it lacks, so the search finds the way."""
    try:
        light, length = evaluate(link, target_bits, choice_at(point))
    except ConfigurationError:
        return 1e12
    return -1e6 * length / light.pulses if length > 0 else 1.0 - length


def optimise(job: Job) -> str | None:
    """Return the table's line for one size and loss, or None without a key."""
    decoys, target_bits, loss_db = job
    link = replace(fibre_link(), transmittance=10 ** (-loss_db / 10))
    found = differential_evolution(
        cost, BOUNDS[: 3 + decoys], args=(link, target_bits), rng=1, popsize=12, maxiter=120, tol=1e-5, polish=False
    )
    choice = choice_at(found.x)
    light, length = evaluate(link, target_bits, choice)
    if length <= 0:
        return None
    levels = f"signal = {choice.signal}, decoy = {choice.decoy}, "
    more = f"decoy_probability = {choice.decoy_probability}, weakest = {choice.weakest}, " if decoys > 1 else ""
    return (
        f"  {{ {_MARK[decoys]}target_bits = {target_bits}, loss_db = {loss_db}, {levels}"
        f"signal_probability = {choice.signal_probability}, z_probability = {choice.z_probability}, {more}"
        f"pulses = {light.pulses}, secret_key_length = {length} }},"
    )


def main() -> int:
    """Write the table; say on stderr what had no key."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--decoys", type=int, choices=sorted(GRID), action="append")
    arguments = parser.parse_args()
    anew = arguments.decoys or sorted(GRID)
    standing = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("  {")]
    jobs: list[Job] = [(decoys, *cell) for decoys in anew for cell in product(*GRID[decoys])]
    with ProcessPoolExecutor(arguments.workers) as pool:
        found = list(pool.map(optimise, jobs))
    for (decoys, target_bits, loss_db), line in zip(jobs, found, strict=True):
        if line is None:
            print(f"no key: {decoys} decoys, {target_bits} sifted bits at {loss_db} dB", file=sys.stderr)
    lines: list[str] = []
    for decoys in sorted(GRID):
        if decoys in anew:
            lines += [line for (d, _, _), line in zip(jobs, found, strict=True) if d == decoys and line]
        else:
            lines += [line for line in standing if (_MARK[2] in line) == (decoys == 2)]
    TABLE.write_text(_HEAD + "entries = [\n" + "\n".join(lines) + "\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
