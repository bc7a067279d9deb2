"""The compiled search against its readable twin: the same messages, the same bits, on any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.kernels import cascade, native
from heliograph.kernels.cascade_tree import subset
from heliograph.kernels.shuffle import Shuffle, positions

pytestmark = pytest.mark.skipif(native.compiled is None, reason="this installation has no compiled kernels")

SIZES = [1, 2, 3, 7, 8, 9, 31, 63, 64, 65, 127, 128, 129, 191, 192, 193, 4095, 4096, 4097, 4159, 8192, 8257]


def plan(length, levels=(3, 5, 8), window=4, few=4, at_once=2, seed=0):
    rng = np.random.default_rng([seed, length])
    words, tail = length // 4096 * 64, length % 4096
    top = max(length - 1, 0).bit_length()
    shuffles = tuple(
        Shuffle(
            rng.permutation(words).astype(np.uint32),
            rng.integers(0, 64, words).astype(np.uint8),
            rng.permutation(words).astype(np.uint32),
            rng.permutation(tail).astype(np.uint32),
        )
        for _ in range(3)
    )
    keys = rng.integers(0, 2**64, cascade.KEYS, dtype=np.uint64)
    first, second, third = (min(level, top) for level in levels)
    spread = bytes(min(second + i % 3, top) for i in range(cascade.SHARES))
    return cascade.Plan(length, first, spread, third, shuffles, keys, window, few, at_once)


def exchange(kernel, bits, errors, first, last, tamper=None):
    """Run both sides; return every message and how it ended."""
    n = len(bits)
    reference, correction = (
        cascade.make_block(np.packbits(one).tobytes(), n, first, last, corrects=corrects, kernel=kernel)
        for one, corrects in ((bits, False), (bits ^ errors, True))
    )
    told = []
    while correction.count and reference.count:
        ours, theirs = correction.parities(), reference.parities()
        told.append((correction.count, ours, theirs))
        if tamper is not None:
            theirs = tamper(len(told), theirs)
        codes = correction.learn(theirs), reference.learn(ours)
        if any(codes):
            return told, codes
        if correction.count != reference.count:
            return told, "out of step"
    return told, (correction.bits(), reference.bits(), correction.pattern(), reference.pattern())


def noisy(n, kind, seed=1):
    rng = np.random.default_rng([seed, n])
    bits = rng.integers(0, 2, n, dtype=np.uint8)
    match kind:
        case "zeros":
            return np.zeros(n, dtype=np.uint8), np.zeros(n, dtype=np.uint8)
        case "ones":
            return np.ones(n, dtype=np.uint8), np.ones(n, dtype=np.uint8)
        case "burst":
            errors = np.zeros(n, dtype=np.uint8)
            errors[n // 3 : n // 3 + n // 10 + 1] = 1
            return bits, errors
        case "ends":
            errors = np.zeros(n, dtype=np.uint8)
            errors[[0, n - 1]] = 1
            return bits, errors
        case _:
            return bits, (rng.random(n) < kind).astype(np.uint8)


@pytest.mark.parametrize("kind", ["zeros", "ones", "burst", "ends", 0.02, 0.3])
@pytest.mark.parametrize(
    ("n", "at_once"),
    [
        # Of the long ones one with each number: the others are the same search, with twins that take a second.
        pytest.param(n, at_once, marks=[pytest.mark.soak] if n > 200 and n != 4097 and at_once != 2 else [])
        for n in SIZES
        for at_once in (0, 2, 1000)
    ],
)
def test_both_kernels_say_and_find_the_same(n, kind, at_once):
    if n > 200 and kind == "ones":
        n = n % 200 + 1  # every bit wrong is a long search
    bits, errors = noisy(n, kind)
    one = plan(n, at_once=at_once)
    compiled, numpy = (exchange(kernel, bits, errors, one, one) for kernel in ("compiled", "numpy"))
    assert compiled == numpy
    packed = np.packbits(bits).tobytes()
    assert compiled[1] == (packed, packed, np.packbits(errors).tobytes(), np.packbits(errors).tobytes())


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_both_kernels_agree_on_any_plan(data):
    each, frames = 64 * data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    rest = data.draw(st.integers(1, each))
    n = each * (frames - 1) + rest
    levels = tuple(data.draw(st.integers(0, 12)) for _ in range(3))
    options = levels, data.draw(st.integers(0, 31)), data.draw(st.integers(0, 100)), data.draw(st.integers(0, 9))
    bits, errors = noisy(n, data.draw(st.floats(0, 1)), data.draw(st.integers(0, 99)))
    first, last = plan(each, *options), plan(rest, *options)
    compiled, numpy = (exchange(kernel, bits, errors, first, last) for kernel in ("compiled", "numpy"))
    assert compiled == numpy
    if isinstance(compiled[1][0], bytes):
        assert compiled[1][0] == np.packbits(bits).tobytes()


@pytest.mark.parametrize(
    ("each", "frames", "qber", "options", "seed"),
    [
        (2240, 48, 0.1, ((5, 7, 2), 4, 50), 47),
        (1536, 97, 0.2, ((8, 6, 2), 1, 1000), 41),
        (1088, 102, 0.2, ((3, 1, 5), 1, 50), 18),
    ],
)
def test_frames_do_not_disturb_each_other(each, frames, qber, options, seed):
    """They share the memory for the errors of a round; in these blocks one left something behind in it."""
    bits, errors = noisy(each * frames, qber, seed)
    one = plan(each, *options, seed=seed % 7)
    _, (corrected, *_) = exchange("compiled", bits, errors, one, one)
    assert corrected == np.packbits(bits).tobytes()


@pytest.mark.parametrize("n", [4095, 4096, 12_345, 3 * 65_536])
def test_what_only_some_processors_have_changes_nothing(n, monkeypatch):
    bits, errors = noisy(n, 0.03)
    one = plan(n)
    usual = exchange("compiled", bits, errors, one, one)
    native_plan = native.compiled.Plan
    portable = []

    def make(*arguments):
        portable.append(native_plan(*arguments, True))  # noqa: FBT003
        return portable[-1]

    monkeypatch.setattr(native.compiled, "Plan", make)
    assert exchange("compiled", bits, errors, one, one) == usual
    assert portable


@pytest.mark.parametrize("left", [3, 5])
def test_digits_of_more_errors_than_one_lead_to_no_wrong_correction(left):
    """Each rank that digits lead to is asked for itself before it is corrected: whatever they say, only errors are."""
    wrong = 0
    for seed in range(30):
        rng = np.random.default_rng([left, seed])
        bits, errors = noisy(4096, 0.0, seed)
        errors[rng.choice(4096, left, replace=False)] = 1
        one = plan(4096, levels=(12, 12, 12), at_once=1000, seed=seed)
        told, (corrected, *_, pattern) = exchange("compiled", bits, errors, one, one)
        assert told[1][0] == 11  # twelve digits of a place, but the lowest
        assert corrected == np.packbits(bits).tobytes()
        assert pattern == np.packbits(errors).tobytes()
        wrong += told[2][1] == told[2][2]
    assert wrong, "digits of several errors never led astray: the test shows nothing"


@pytest.mark.parametrize("n", [1 << 10, 1 << 14])
def test_a_single_error_is_found_in_two_or_three_rounds_of_digits(n):
    """One round for all digits but the lowest, one or two for the pair."""
    top = (n - 1).bit_length()
    for at in (0, 1, n // 2, n - 1):
        bits, errors = noisy(n, 0.0)
        errors[at] = 1
        one = plan(n, levels=(top, top, top), at_once=5)
        told, (corrected, *_) = exchange("compiled", bits, errors, one, one)
        counts = [count for count, *_ in told]
        assert counts[:2] == [1, top - 1]
        assert counts[2:] in ([1, 16], [1, 1, 16])  # the subsets of the end: passes 1 and 2 have nothing to ask
        assert corrected == np.packbits(bits).tobytes()


@pytest.mark.parametrize("seed", range(40))
def test_lies_end_alike(seed):
    bits, errors = noisy(300, 0.05, seed)
    one = plan(300, seed=seed)

    def lie(count, parities):
        return bytes(
            b ^ (1 << (count * 7 + i) % 8 if (count + i + seed) % 5 == 0 else 0) for i, b in enumerate(parities)
        )

    assert exchange("compiled", bits, errors, one, one, lie) == exchange("numpy", bits, errors, one, one, lie)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 4095, 4096, 4097, 12_288, 20_000])
def test_the_shuffle_is_a_permutation(n):
    for shuffle in plan(n).shuffles:
        assert np.array_equal(np.sort(positions(shuffle, np.arange(n))), np.arange(n))


def test_a_subset_holds_about_half_and_subsets_are_independent():
    masks = np.array([subset(key, 10_000) for key in range(20)]).astype(int)
    assert (abs(masks.sum(axis=1) - 5000) < 5 * 50).all()
    assert all(abs((masks[i] ^ masks[i + 1]).sum() - 5000) < 5 * 50 for i in range(19))


def test_what_does_not_fit_is_refused_at_the_boundary():
    one, bits = plan(100), bytes(13)
    native_plan = native.compiled.Plan(100, 3, one.second, 7, one.shuffles, one.keys, 4, 4, 2)
    for arguments in ((bits, 101), (bits, 96), (bits, 0), (b"", 0), (bits[:12], 100)):
        with pytest.raises(ValueError, match=r"another length|add up"):
            native.compiled.Block(*arguments, native_plan, native_plan, True)  # noqa: FBT003
    twice = Shuffle(*(np.zeros(64, dtype=t) for t in (np.uint32, np.uint8, np.uint32)), np.empty(0, dtype=np.uint32))
    good = plan(4096)
    usual = 3, one.second, 7
    for length, levels, shuffles, keys in (
        (0, usual, one.shuffles, one.keys),
        (cascade.FRAME_MAX + 1, usual, one.shuffles, one.keys),
        (100, (31, one.second, 0), one.shuffles, one.keys),
        (100, (8, one.second, 0), one.shuffles, one.keys),
        (100, (0, one.second, 8), one.shuffles, one.keys),
        (100, (0, one.second[:-1] + b"\x08", 0), one.shuffles, one.keys),
        (100, (0, one.second[:-1], 0), one.shuffles, one.keys),
        (101, usual, one.shuffles, one.keys),
        (100, usual, one.shuffles[:2], one.keys),
        (100, usual, one.shuffles, one.keys[:9]),
        (4096, usual, (twice, *good.shuffles[1:]), good.keys),
    ):
        with pytest.raises(ValueError, match=r"another|permutations"):
            native.compiled.Plan(length, *levels, shuffles, keys, 4, 4, 2)
    block = native.compiled.Block(bits, 100, native_plan, native_plan, True)  # noqa: FBT003
    for size in (0, len(block.parities()) - 1, len(block.parities()) + 1):
        with pytest.raises(ValueError, match="another length"):
            block.learn(bytes(size))
