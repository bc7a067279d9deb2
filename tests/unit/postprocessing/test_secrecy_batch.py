"""The vectorised bounds and lengths that steer the search are the readable ones, to rounding."""

import math

import numpy as np
import pytest

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.batch_bounds import binary_entropies
from heliograph.postprocessing.secrecy.batch_lengths import ManyLights, lengths
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.link import LinkModel, fibre_link
from heliograph.postprocessing.secrecy.objective import PRINTED, PRINTED_MARGIN, BlockSize, Goal, decoys_of, judge
from heliograph.postprocessing.secrecy.photons import SMALLEST
from heliograph.postprocessing.secrecy.planning import Margin
from heliograph.postprocessing.secrecy.table import LightChoice

THEOREMS = ("wiesemann2024", "lim2014-serfling", "rusca2018", "lim2014")
LINKS = (
    fibre_link(0),
    fibre_link(60),
    fibre_link(140),
    LinkModel(1e9, 0.05, 0.0, 0.0, 0.0, 0.0),
    LinkModel(1e7, 0.3, 1e-4, 0.03, 0.1, 1e-5),
    LinkModel(2.5e9, 1e-4, 1e-8, 0.01, 0.02, 1e-7, 1e-6),
)
MARGINS = (Margin(), Margin(sigmas=0, qber=0, detections=0, efficiency=1.0, constant_bits=0), Margin(6, 0.3, 0.2, 1.3))
# numpy's exp and log differ from libm's in the last place on some processors; gains near 1e-7 lose nine digits of it.
ROUNDING = 1e-7


def goals(theorem):
    sizes = [BlockSize("pulses", 10**9), BlockSize("sifted_bits", 30_000), BlockSize("sifted_bits", 10**7)]
    if theorem in PRINTED:
        return [Goal(theorem, s, 1e-9, 1e-15, PRINTED_MARGIN) for s in (*sizes, BlockSize("key_bits", 10**6))]
    return [Goal(theorem, s, eps, 1e-12, m) for s, eps, m in zip(sizes, (1e-15, 1e-10, 1e-20), MARGINS, strict=True)]


def choices(decoys, many, rng):
    """Light over the whole range, sensible and not: some of it is refused."""
    found = []
    for _ in range(many):
        signal = float(10 ** rng.uniform(-3, 1.05))
        decoy, p_signal = float(signal * 10 ** rng.uniform(-4, 0.02)), float(10 ** rng.uniform(-3, 0))
        z = float(rng.uniform(0.01, 0.99))
        if decoys == 1:
            found.append(LightChoice(signal, decoy, p_signal, z))
        else:
            share = float((1 - p_signal) * rng.uniform(0.01, 0.99))
            found.append(LightChoice(signal, decoy, p_signal, z, share, float(rng.choice([0.0, 2e-4, 0.01]))))
    return found


def many(found):
    return ManyLights(
        np.array([c.intensities for c in found]).T,
        np.array([c.probabilities for c in found]).T,
        np.array([c.z_probability for c in found]),
    )


@pytest.mark.parametrize("link", LINKS, ids=range(len(LINKS)))
@pytest.mark.parametrize("theorem", THEOREMS)
def test_the_fast_lengths_are_the_readable_ones_and_refuse_the_same_light(theorem, link):
    rng = np.random.default_rng(THEOREMS.index(theorem) * 10 + LINKS.index(link))
    with_key = refused = 0
    for goal in goals(theorem):
        found = choices(decoys_of(theorem), 60, rng)
        fast = lengths(goal, link, many(found))
        for i, choice in enumerate(found):
            try:
                slow = judge(goal, link, choice)
            except ConfigurationError:
                assert fast.raw_length[i] == -math.inf
                refused += 1
                continue
            if choice.decoys == 1 and choice.decoy < SMALLEST:
                assert slow.raw_length <= 0, "a decoy next to nothing proves nothing"
                assert fast.raw_length[i] == -math.inf
                continue
            assert fast.raw_length[i] == pytest.approx(slow.raw_length, rel=ROUNDING, abs=1e-4)
            assert fast.pulses[i] == pytest.approx(slow.light.pulses, rel=ROUNDING, abs=1)
            with_key += slow.raw_length > 0
    assert refused > 0
    assert with_key > 0 or link in LINKS[2:5:2], "too far, too noisy"


def test_nothing_divides_by_zero_when_nothing_is_detected_or_everything_is_wrong():
    """Warnings are errors in this suite."""
    dark = LinkModel(1.0, 1e-20, 0.0, 0.0, 0.0, 0.0)
    useless = LinkModel(1e9, 0.1, 0.5, 0.5, 0.5, 1e-3)
    light = ManyLights(np.array([[0.5], [0.1]]), np.array([[0.5], [0.5]]), np.array([0.5]))
    goal = Goal("wiesemann2024", BlockSize("sifted_bits", 1000), 1e-15, 1e-15)
    assert lengths(goal, dark, light).raw_length[0] == -math.inf, "more pulses than a block may have"
    assert lengths(Goal("wiesemann2024", BlockSize("pulses", 5), 1e-15, 1e-15), dark, light).earned[0] == 0
    assert lengths(goal, useless, light).earned[0] == 0


def test_the_entropies_are_the_entropy():
    x = np.array([0.0, 1e-18, 1e-6, 0.1, 0.5, 0.999999, 1.0])
    assert binary_entropies(x) == pytest.approx([binary_entropy(float(v)) for v in x], rel=1e-12)
