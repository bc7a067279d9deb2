"""The compiled sampler of clicks against its readable twin, bit for bit, and its logarithm against another one."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest

from heliograph.kernels import clicks, native
from heliograph.kernels.clicks import minus_log, run_clicks
from heliograph.kernels.expansion import SeededPulses, expand_bases
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.clicks import sample_clicks
from heliograph.sim.detectors import LIM_2014, DetectorParameters
from heliograph.sim.eve import InterceptResend
from heliograph.sim.randomness import lab_generator
from heliograph.types import LightParameters

LEVEL = 0 if native.compiled is None else native.compiled.aes_level()
needs_kernel = pytest.mark.skipif(not LEVEL, reason="no compiled kernels, or a processor without AES instructions")

HARD = DetectorParameters(0.3, 0.01, 0.3, 4e-9, 6e-9)
LIGHT = LightParameters(20_000, 1e9, (0.8, 0.2), (0.6, 0.4), 0.7, 0.6)


def both(light, detectors, attack=None, km=1.0, lab_seed=1):
    channel = Channel(FibreParameters(km, misalignment=0.05), detectors)
    return [
        sample_clicks(
            channel, SeededPulses(light, bytes(range(32))), bytes(32), lab_generator(lab_seed), attack, kernel=kernel
        )
        for kernel in (None, "numpy")
    ]


def same(pair):
    one, two = pair
    assert np.array_equal(one.slots, two.slots)
    assert np.array_equal(one.patterns, two.patterns)
    assert (one.eve is None) == (two.eve is None)
    if one.eve is not None:
        for name in ("measured", "bases", "bits"):
            assert np.array_equal(getattr(one.eve, name), getattr(two.eve, name)), name
    return one


@needs_kernel
@pytest.mark.parametrize("pulses", [1, 2, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 2**17 + 1])
@pytest.mark.parametrize(
    "detectors",
    [HARD, replace(HARD, dead_time_s=0.0), replace(HARD, afterpulse_probability=0.0), LIM_2014],
    ids=["all effects", "no dead time", "no afterpulses", "the default"],
)
def test_both_kernels_find_the_same_clicks_at_every_size(pulses, detectors):
    for light in (replace(LIGHT, pulses=pulses), LightParameters(pulses, 1e9, (50.0,), (1.0,), 0.5, 0.5)):
        for attack in (None, InterceptResend(0.4, 0.7)):
            same(both(light, detectors, attack))


@needs_kernel
def test_both_kernels_find_the_same_where_every_pulse_clicks_and_where_none_does():
    blinding = DetectorParameters(1.0, 0.999999, 0.99, 1e-9, 0.0)
    found = same(both(replace(LIGHT, intensities=(1000.0, 999.0)), blinding, km=0.0))
    assert np.array_equal(found.slots, np.arange(LIGHT.pulses))
    assert np.count_nonzero(found.patterns == 3) > LIGHT.pulses * 0.99
    dark = DetectorParameters(0.1, 0.0, 0.9, 1e-6, 0.0)
    for attack in (None, InterceptResend(1.0)):
        assert not len(same(both(replace(LIGHT, intensities=(1e-300, 0.0)), dark, attack)).slots)
        assert not len(same(both(LightParameters(10, 1e9, (0.0,), (1.0,), 0.5, 0.5), dark, attack)).slots)


@needs_kernel
@pytest.mark.parametrize(
    "detectors",
    [
        replace(HARD, afterpulse_probability=1 - 2**-53, afterpulse_decay_s=0.0),
        replace(HARD, afterpulse_probability=1e-300),
        replace(HARD, afterpulse_decay_s=1.0, dead_time_s=0.0),
        replace(HARD, dead_time_s=1.0),
    ],
    ids=["trap always filled", "hardly ever", "released much later", "dead for the whole block"],
)
def test_both_kernels_find_the_same_at_the_edges_of_the_detectors(detectors):
    same(both(LIGHT, detectors))
    same(both(replace(LIGHT, clock_hz=1e300), detectors))


@needs_kernel
@pytest.mark.parametrize("number", [1, 3, 5, 9])
def test_both_kernels_find_the_same_for_any_number_of_intensities(number):
    light = LightParameters(30_000, 1e9, tuple(1.0 / (k + 1) for k in range(number)), (1 / number,) * number, 0.5, 0.5)
    same(both(light, HARD, InterceptResend(0.5)))


@needs_kernel
def test_a_guess_of_too_little_room_changes_no_click(monkeypatch):
    expected = same(both(replace(LIGHT, pulses=300_000), HARD))
    monkeypatch.setattr(clicks, "_room", lambda *_: 1)
    assert np.array_equal(both(replace(LIGHT, pulses=300_000), HARD)[0].slots, expected.slots)


@needs_kernel
def test_processors_with_narrow_registers_find_the_same_and_expand_the_same(monkeypatch):
    wide = both(LIGHT, HARD, InterceptResend(0.4))[0]
    slots = np.arange(1000, dtype=np.int64) * 2**36
    thresholds = np.array([2**31, 3 * 2**30], dtype=np.uint64)
    expanded = [native.compiled.expand(bytes(32), slots, 2**30, thresholds, level=level) for level in (1, 2)]
    assert expanded[0] == expanded[1]
    real = native.compiled.clicks

    class Narrow:
        aes_level = native.compiled.aes_level
        expand = native.compiled.expand

        @staticmethod
        def clicks(*arguments):
            return real(*arguments, level=1)

    monkeypatch.setattr(clicks, "compiled", Narrow)
    narrow = both(LIGHT, HARD, InterceptResend(0.4))[0]
    same([narrow, wide])


@needs_kernel
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 63, 64, 65, 1000])
def test_both_kernels_expand_a_seed_alike(n):
    light = LightParameters(2**47, 1e9, (0.5, 0.2, 0.0), (0.6, 0.3, 0.1), 0.9, 0.8)
    slots = np.random.default_rng(n).integers(0, 2**47, n)
    pulses = SeededPulses(light, bytes(range(32)))
    one, two = pulses.at(slots), pulses.at(slots, kernel="numpy")
    for name in ("bases", "intensities", "bits"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    bases = expand_bases(bytes(32), slots, 0.3)
    assert np.array_equal(bases, expand_bases(bytes(32), slots, 0.3, kernel="numpy"))


def test_the_logarithm_is_right_over_its_whole_range():
    rng = np.random.default_rng(1)
    whole = np.concatenate(
        (
            np.array([1, 3, 5, 2**52 - 1, 2**52 + 1, 2**53 - 3, 2**53 - 1]),
            rng.integers(0, 2**52, 2000) * 2 + 1,
            2 ** rng.integers(0, 52, 1000) + 1,
            (2**52 + np.arange(129) * 2**45) | 1,
        )
    )
    whole = whole[whole < 2**53] | 1
    found = minus_log(whole.astype(np.float64))
    with localcontext() as context:
        context.prec = 40
        for number, log in zip(whole.tolist(), found.tolist(), strict=True):
            exact = -(Decimal(number) / 2**53).ln()
            assert abs(Decimal(log) - exact) < max(exact, 1) * Decimal(2) ** -48, number


def test_seeds_and_tables_that_do_not_fit_are_refused():
    channel, pulses = Channel(FibreParameters(1.0), HARD), SeededPulses(LIGHT, bytes(32))
    with pytest.raises(ValueError, match="32 each are needed"):
        sample_clicks(channel, pulses, bytes(31), lab_generator(1))
    optics = clicks.Optics(0, 0, 1.0, np.zeros((2, 3, 3), dtype=np.int64), 0.0, 0.0)
    with pytest.raises(ValueError, match="frame 0"):
        run_clicks(optics, pulses, bytes(32), bytes(32))


@needs_kernel
def test_tables_of_another_length_are_refused_at_the_boundary():
    optics = clicks.Optics(0, 1024, 1.0, np.zeros((1, 3, 3), dtype=np.int64), 0.0, 0.0)
    with pytest.raises(ValueError, match="another length"):
        run_clicks(optics, SeededPulses(LIGHT, bytes(32)), bytes(32), bytes(32))
