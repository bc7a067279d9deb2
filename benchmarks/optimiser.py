"""Time the optimiser on whole distance curves, and compare points of them with a far heavier search of another kind.

    python benchmarks/optimiser.py [--json] [--every KM]

Curves from 0 to 200 km in steps of 5 km on the default link, for each theorem, in processor time of one core. Every
``--every`` km (default 50) the key per pulse is set beside the best of scipy's differential evolution with some 90 000
lights over a plain box. Exit 1 if a curve takes 60 s or a point is more than 0.5 % below.
Needs scipy; two to three minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
from scipy.optimize import differential_evolution

from heliograph.postprocessing.secrecy.batch_lengths import ManyLights, lengths
from heliograph.postprocessing.secrecy.link import fibre_link
from heliograph.postprocessing.secrecy.objective import PRINTED, PRINTED_MARGIN, BlockSize, Goal, decoys_of
from heliograph.postprocessing.secrecy.optimise import WEAKEST, optimise_curve
from heliograph.postprocessing.secrecy.planning import Margin

SECONDS_MAX, SHORT_MAX = 60.0, 0.005
CURVE_KM = tuple(range(0, 205, 5))
MILLION = BlockSize("sifted_bits", 1_000_000)
QUESTIONS = (
    ("wiesemann2024", BlockSize("sifted_bits", 100_000)),
    ("wiesemann2024", MILLION),
    ("lim2014-serfling", MILLION),
    ("lim2014-serfling", BlockSize("pulses", 10**11)),
    ("rusca2018", BlockSize("key_bits", 10**7)),
    ("lim2014", BlockSize("key_bits", 10**7)),
)


def goal(theorem, block=MILLION, eps=1e-15):
    return Goal(theorem, block, eps, eps, PRINTED_MARGIN if theorem in PRINTED else Margin())


def heavy_search(asked, link, seed=1):
    """Return the most key per pulse that scipy finds: none of our search, of our map of the box, or of its limits."""
    decoys = decoys_of(asked.theorem)
    limits = [(0.003, 1.5), (0.002, 0.99), (0.001, 0.999), (0.1, 0.9999), (0.001, 0.999)][: 3 + decoys]

    def cost(x):
        signal, ratio, p_signal, z = x[:4]
        rows = [signal, signal * ratio], [p_signal, 1 - p_signal]
        if decoys == 2:
            p_decoy = (1 - p_signal) * x[4]
            rows = [*rows[0], np.full_like(signal, WEAKEST)], [p_signal, p_decoy, 1 - p_signal - p_decoy]
        found = lengths(asked, link, ManyLights(np.array(rows[0]), np.array(rows[1]), z))
        raw = np.where(np.isfinite(found.raw_length), found.raw_length, -1e12)
        return np.where(raw > 0, -raw / found.pulses, -raw / found.cost)

    found = differential_evolution(
        cost, limits, rng=seed, popsize=40, maxiter=500, tol=1e-8, vectorized=True, updating="deferred", polish=False
    )
    return -float(found.fun)


def measure(theorem, block, every_km):
    """Return one line of the report. ``short``: how far the worst compared point is below; negative if above."""
    asked = goal(theorem, block)
    began = time.process_time()
    curve = optimise_curve(asked, [fibre_link(km) for km in CURVE_KM])
    seconds = time.process_time() - began
    shorts = {}
    for km, found in zip(CURVE_KM, curve, strict=True):
        if km % every_km == 0 and (best := heavy_search(asked, fibre_link(km))) > 0:
            shorts[km] = 1.0 if found is None else 1 - found.key_per_pulse / best
    worst = max(shorts, key=shorts.__getitem__)
    reach = max(km for km, found in zip(CURVE_KM, curve, strict=True) if found)
    return {
        "theorem": theorem,
        block.kind: block.amount,
        "points": len(CURVE_KM),
        "seconds": seconds,
        "reach_km": reach,
        "compared_km": list(shorts),
        "short": shorts[worst],
        "short_at_km": worst,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--every", type=int, default=50)
    arguments = parser.parse_args()
    results = []
    for theorem, block in QUESTIONS:
        results.append(measure(theorem, block, arguments.every))
        if not arguments.json:
            r = results[-1]
            print(
                f"{theorem:<18} {block.amount:>13,} {block.kind:<12} {r['points']} points in {r['seconds']:.1f} s, "
                f"reach {r['reach_km']} km, worst {-r['short']:+.3%} at {r['short_at_km']} km",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"stage": "optimiser", "results": results}))
    return int(any(r["seconds"] >= SECONDS_MAX or r["short"] > SHORT_MAX for r in results))


if __name__ == "__main__":
    sys.exit(main())
