"""Find the light that gives the most key per pulse, for each block size and loss, and write the table.

    python tools/optimise_parameters.py [--decoys 1|2] [--compare]

The figure of merit is the preset length of the fixed policy, thresholds and margins included, over the pulses of the
block; the link is the default one (``fibre_link``). With two decoys the grid is coarser, and the weakest intensity is
that of Lim et al. 2014, Fig. 1: an attenuator's leak, not a vacuum nobody can promise. ``--decoys`` makes the lines of
that many decoys anew and keeps the others as they stand; ``--compare`` writes nothing and prints how far each line of
the table is below what the search finds. Deterministic.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from heliograph.postprocessing.secrecy.link import LinkModel, fibre_link
from heliograph.postprocessing.secrecy.objective import BlockSize, Goal, Outcome
from heliograph.postprocessing.secrecy.optimise import optimise_curve
from heliograph.postprocessing.secrecy.planning import DEFAULT_EPS
from heliograph.postprocessing.secrecy.table import entries
from heliograph.postprocessing.secrecy.theorems import theorem_for

TABLE = Path(__file__).parent.parent / "src/heliograph/postprocessing/secrecy/table.toml"
SIZES = (30_000, 100_000, 300_000, 1_000_000, 10_000_000)
LOSSES = {1: tuple(2.5 * i for i in range(21)), 2: tuple(5.0 * i for i in range(9))}  # in dB, by decoys

_HEAD = (
    "# Written by tools/optimise_parameters.py; not to be edited.\n"
    "# target_bits: expected sifted bits, both bases together. loss_db: fibre, receiver and detector efficiency.\n"
    "# Link: fibre_link(): dark counts 6e-7, afterpulses 4 %, misalignment 0.5 %, dead time, decay 1 us, 1 GHz.\n"
    f"# eps_sec = eps_cor = {DEFAULT_EPS}, policy fixed, default margins. No line: no key. No decoys: one.\n"
)
_MARK = {1: "", 2: "decoys = 2, "}  # how a line begins; without a mark it is one decoy


def link_of(loss_db: float) -> LinkModel:
    """Return the default link with so much loss, detectors included."""
    return replace(fibre_link(), transmittance=10 ** (-loss_db / 10))


def search(decoys: int, target_bits: int) -> dict[float, Outcome | None]:
    """Return the best block for each loss."""
    goal = Goal(theorem_for(decoys).name, BlockSize("sifted_bits", target_bits), DEFAULT_EPS, DEFAULT_EPS)
    losses = LOSSES[decoys]
    return dict(zip(losses, optimise_curve(goal, [link_of(loss) for loss in losses]), strict=True))


def line(decoys: int, target_bits: int, loss_db: float, found: Outcome) -> str:
    """Return the table's line for one size and loss."""
    choice = found.choice
    more = f"decoy_probability = {choice.decoy_probability}, weakest = {choice.weakest}, " if decoys > 1 else ""
    return (
        f"  {{ {_MARK[decoys]}target_bits = {target_bits}, loss_db = {loss_db}, "
        f"signal = {choice.signal}, decoy = {choice.decoy}, "
        f"signal_probability = {choice.signal_probability}, z_probability = {choice.z_probability}, {more}"
        f"pulses = {found.light.pulses}, secret_key_length = {found.secret_key_length} }},"
    )


def compare(decoys: int, target_bits: int, found: dict[float, Outcome | None]) -> None:
    """Print the table's key per pulse beside the search's."""
    standing = {e.loss_db: e for e in entries(decoys) if e.target_bits == target_bits}
    for loss, outcome in found.items():
        entry = standing.get(loss)
        if outcome is None or entry is None:
            word = (
                "no key" if outcome is None and entry is None else "table has no line" if outcome else "search lost it"
            )
            print(f"{decoys} {target_bits:>9} {loss:>5} dB  {word}")
            continue
        ratio = entry.secret_key_length / entry.pulses / (outcome.secret_key_length / outcome.light.pulses)
        print(f"{decoys} {target_bits:>9} {loss:>5} dB  table {ratio - 1:+.3%}")


def main() -> int:
    """Write the table, or compare; say on stderr what had no key."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoys", type=int, choices=sorted(LOSSES), action="append")
    parser.add_argument("--compare", action="store_true")
    arguments = parser.parse_args()
    anew = arguments.decoys or sorted(LOSSES)
    standing = [text for text in TABLE.read_text(encoding="utf-8").splitlines() if text.startswith("  {")]
    lines: list[str] = []
    for decoys in sorted(LOSSES):
        if decoys not in anew:
            lines += [text for text in standing if (_MARK[2] in text) == (decoys == 2)]
            continue
        for target_bits in SIZES:
            found = search(decoys, target_bits)
            if arguments.compare:
                compare(decoys, target_bits, found)
                continue
            for loss, outcome in found.items():
                if outcome is None:
                    print(f"no key: {decoys} decoys, {target_bits} sifted bits at {loss} dB", file=sys.stderr)
                else:
                    lines.append(line(decoys, target_bits, loss, outcome))
    if not arguments.compare:
        TABLE.write_text(_HEAD + "entries = [\n" + "\n".join(lines) + "\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
