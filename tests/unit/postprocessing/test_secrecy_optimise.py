"""The chosen light earns within 0.5 % of the best that a far heavier search of another kind finds, in time."""

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.link import LinkModel, fibre_link
from heliograph.postprocessing.secrecy.objective import PRINTED_MARGIN, BlockSize, Goal, judge
from heliograph.postprocessing.secrecy.optimise import optimise, optimise_curve
from heliograph.postprocessing.secrecy.planning import plan_block
from heliograph.postprocessing.secrecy.table import LightChoice

SHORT = 0.005  # what the optimiser may stay below the optimum
PATH = Path(__file__).parents[3] / "benchmarks/optimiser.py"


def load():
    spec = importlib.util.spec_from_file_location("optimiser", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


benchmark = load()
goal, heavy_search, CURVE_KM, MILLION = benchmark.goal, benchmark.heavy_search, benchmark.CURVE_KM, benchmark.MILLION


# Key per pulse found by heavy_search, the better of two seeds; the soak run makes such figures anew.
SAMPLES = {
    ("wiesemann2024", MILLION, 25): 2.00333e-04,
    ("wiesemann2024", MILLION, 150): 4.65747e-08,  # a kilometre or two before the end of its reach
    ("wiesemann2024", BlockSize("sifted_bits", 30_000), 25): 7.56002e-06,
    ("wiesemann2024", BlockSize("pulses", 10**11), 125): 8.61013e-06,
    ("lim2014-serfling", BlockSize("sifted_bits", 10**5), 75): 1.04166e-05,
    ("rusca2018", BlockSize("key_bits", 10**7), 150): 2.87184e-06,
    ("lim2014", BlockSize("key_bits", 10**7), 175): 1.54061e-07,
}


@pytest.mark.parametrize(("theorem", "block", "km"), SAMPLES, ids=[f"{t}-{b.amount}-{km}km" for t, b, km in SAMPLES])
def test_named_points_are_within_half_a_per_cent_of_the_recorded_optimum(theorem, block, km):
    found = optimise(goal(theorem, block), fibre_link(km))
    best = SAMPLES[theorem, block, km]
    assert best * (1 - SHORT) <= found.key_per_pulse <= best * 1.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theorem", "km"), [("wiesemann2024", 60), ("lim2014-serfling", 110)], ids=["one decoy", "two decoys"]
)
def test_a_point_is_within_half_a_per_cent_of_a_heavier_search(theorem, km):
    found = optimise(goal(theorem), fibre_link(km))
    assert found.key_per_pulse >= heavy_search(goal(theorem), fibre_link(km)) * (1 - SHORT)


@pytest.mark.soak
@pytest.mark.parametrize("theorem", ["wiesemann2024", "lim2014-serfling"])
def test_a_whole_curve_falls_with_the_distance_and_ends_where_it_should(theorem):
    found = optimise_curve(goal(theorem), [fibre_link(km) for km in CURVE_KM])
    rates = [0.0 if one is None else one.key_per_pulse for one in found]
    assert rates == sorted(rates, reverse=True)
    assert sum(rate > 0 for rate in rates) == 31, "0 to 150 km"


@pytest.mark.soak
@pytest.mark.parametrize("theorem", ["wiesemann2024", "lim2014-serfling", "rusca2018", "lim2014"])
@pytest.mark.parametrize("kind", ["pulses", "sifted_bits"])
@pytest.mark.parametrize("size", [0, 1, 2])
def test_whole_curves_are_within_half_a_per_cent_of_a_heavier_search(theorem, kind, size):
    amount = {"pulses": (10**9, 10**10, 10**12), "sifted_bits": (30_000, 10**6, 10**8)}[kind][size]
    asked, places = goal(theorem, BlockSize(kind, amount)), range(0, 200, 20)
    missed = []
    for km, found in zip(places, optimise_curve(asked, [fibre_link(km) for km in places]), strict=True):
        best = heavy_search(asked, fibre_link(km))
        # Below a thousand bits half a per cent is less than what one count more or less changes.
        spare = 0 if found is None else 5 / found.light.pulses
        if best > 0 and (found is None or found.key_per_pulse < best * (1 - SHORT) - spare):
            missed.append((km, best, found and found.key_per_pulse))
    assert missed == []


def test_what_is_found_is_a_block_that_can_be_planned():
    found = optimise(goal("wiesemann2024"), fibre_link(25))
    plan = plan_block("found", fibre_link(25), 10**6, light=found.choice)
    assert (plan.light, plan.acceptance) == (found.light, found.acceptance)
    assert plan.secret_key_length == found.secret_key_length == math.floor(found.raw_length)


def test_the_same_question_has_the_same_answer():
    asked = goal("rusca2018", BlockSize("key_bits", 10**7))
    assert optimise(asked, fibre_link(50)) == optimise(asked, fibre_link(50))


def test_what_is_fixed_stays_and_costs_key():
    asked = goal("rusca2018", BlockSize("sifted_bits", 10**7))
    free = optimise(asked, fibre_link(50))
    bound = optimise(asked, fibre_link(50), fixed={"signal": 0.6123456, "z_probability": 0.5})
    assert (bound.choice.signal, bound.choice.z_probability) == (0.6123456, 0.5)
    assert 0 < bound.key_per_pulse < free.key_per_pulse
    every = {"signal": 0.3, "decoy": 0.1, "signal_probability": 0.5, "z_probability": 0.9}
    assert optimise(asked, fibre_link(50), fixed=every).choice == LightChoice(0.3, 0.1, 0.5, 0.9)


def test_no_key_is_an_answer_and_light_that_fits_nothing_is_refused():
    asked = goal("rusca2018", BlockSize("sifted_bits", 10**5))
    assert optimise(asked, fibre_link(300)) is None
    with pytest.raises(ConfigurationError, match=r"nothing fits.*decoy = 5"):
        optimise(asked, fibre_link(10), fixed={"decoy": 5.0})
    with pytest.raises(ConfigurationError, match="decoy_probability"):
        optimise(asked, fibre_link(10), fixed={"decoy_probability": 0.1})


@pytest.mark.parametrize("block", [BlockSize("pulses", 10**10), BlockSize("sifted_bits", 10**6)], ids=lambda b: b.kind)
def test_the_number_of_pulses_is_fixed_and_gives_the_block_asked_for(block):
    light = LightChoice(0.3, 0.1, 0.4, 0.8)
    found = judge(goal("wiesemann2024", block), fibre_link(40), light)
    if block.kind == "pulses":
        assert found.light.pulses == 10**10
    else:
        assert sum(sum(basis.detections) for basis in found.expected) == pytest.approx(10**6, rel=1e-5)


def test_rusca_2018_gives_the_published_rate_at_26_db():
    """About 2e5 b/s read off the curve; 2.35e5 by benchmarks/published_anchors.py with a link model of its own."""
    link = LinkModel(1e9, 10**-2.6, 5e-9, 0.01, 0.0, 100e-9)
    found = optimise(Goal("rusca2018", BlockSize("key_bits", 10**7), 1e-9, 1e-15, PRINTED_MARGIN), link)
    assert found.key_per_pulse * 1e9 == pytest.approx(2.35e5, rel=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"theorem": "best"}, "theorem = 'best': must be one of wiesemann2024"),
        ({"eps_sec": 0.0}, "eps_sec"),
        ({"eps_cor": math.nan}, "eps_cor"),
        ({"block": BlockSize("key_bits", 10)}, "key_bits bounds no block's duration"),
        ({"theorem": "lim2014"}, "without tolerances"),
    ],
)
def test_a_goal_that_cannot_be_is_refused(change, words):
    with pytest.raises(ConfigurationError, match=words):
        replace(goal("wiesemann2024"), **change)


@pytest.mark.parametrize(("kind", "amount"), [("bits", 10), ("pulses", 0), ("sifted_bits", -1)])
def test_a_block_size_that_cannot_be_is_refused(kind, amount):
    with pytest.raises(ConfigurationError, match=kind):
        BlockSize(kind, amount)
