"""One-way reconciliation: every bit sent is charged, failures are said, and a peer cannot make us do more."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, ReconciliationFailed, RemoteProtocolError
from heliograph.kernels.ldpc_codes import VERSION
from heliograph.postprocessing.reconciliation import codes
from heliograph.postprocessing.reconciliation.charging import charged
from heliograph.postprocessing.reconciliation.codes import RATE_MOST, ROUNDS_MORE, frames_for
from heliograph.postprocessing.reconciliation.correcting import Corrected
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.one_way import Finder, Source, planned_rate
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.types import Disclosed

LIMITS = Limits(parities=1 << 24)


def keys(n, qber, seed=1):
    rng = np.random.default_rng([seed, n])
    alice = rng.integers(0, 2, n, dtype=np.uint8)
    return BitString.from_array(alice), BitString.from_array(alice ^ (rng.random(n) < qber))


def run(alice, bob, rate, limits=LIMITS):
    """Return what crossed the channel, both sides, and the outcome."""
    source, finder = Source(alice, rate, limits), Finder(bob, rate, limits)
    sent = [source.first()]
    result = finder.take(sent[0])
    while not isinstance(result, Corrected):
        sent.append(source.more(result))
        result = finder.take(sent[-1])
    return sent, source, finder, result


@pytest.mark.parametrize(
    ("n", "qber"), [(1000, 0.02), (1, 0.01), (60_000, 0.001), (100_000, 0.02), (100_000, 0.05), (65_537, 0.1)]
)
def test_errors_are_found_and_every_bit_sent_is_charged(n, qber):
    alice, bob = keys(n, qber)
    sent, source, finder, result = run(alice, bob, 1.1 * qber)
    assert result.bits == alice
    assert result.disclosed == source.disclosed == finder.disclosed
    crossed = sum(len(one) for one in sent)
    named = len(sent) * frames_for(n, 1.1 * qber).count
    assert source.disclosed == Disclosed(crossed + named, named)
    assert charged(source.disclosed, "one_way") == crossed + 2 * named


@pytest.mark.parametrize("qber", [0.01, 0.02, 0.03, 0.05])
@pytest.mark.parametrize(("n", "most"), [(1_000_000, 1.2), (65_536, 1.25)])
def test_blocks_are_reconciled_above_the_bound_and_below_a_ceiling(n, most, qber):
    alice, bob = keys(n, qber)
    _, source, _, result = run(alice, bob, qber)
    assert result.bits == alice
    assert 1 < source.disclosed.parities_a / (n * binary_entropy(qber)) < most


@pytest.mark.parametrize("qber", [0.004, 0.01, 0.03, 0.08])
def test_a_rate_taken_a_tenth_too_low_costs_a_round_or_two_and_little_more(qber):
    alice, bob = keys(200_000, qber)
    sent, source, finder, result = run(alice, bob, qber / 1.1)
    assert result.bits == alice
    assert source.disclosed == finder.disclosed
    assert len(sent) <= 3
    assert source.disclosed.parities_a < 1.35 * 200_000 * binary_entropy(qber)


def test_far_too_many_errors_end_in_a_refusal_and_never_in_bits():
    alice, bob = keys(60_000, 0.08)
    with pytest.raises(ReconciliationFailed, match="did not decode"):
        run(alice, bob, 0.02)
    for rate in (RATE_MOST + 0.01, 0.6, float("nan"), float("inf")):
        with pytest.raises(ReconciliationFailed, match="beyond every code"):
            Source(alice, rate, LIMITS)


def test_only_the_frames_that_failed_get_more(monkeypatch):
    """Errors in one frame of four: the others are not told of, and the one is told as often as it needs."""
    monkeypatch.setattr(codes, "_FRAME_MOST", 20_000)
    alice, _ = keys(80_000, 0.02)
    frames = frames_for(80_000, 0.02)
    assert frames.count == 4
    rng = np.random.default_rng(2)
    wrong = rng.random(80_000) < 0.01
    wrong[1::4] = rng.random(20_000) < 0.026  # bit i is in frame i modulo 4
    bob = alice ^ BitString.from_array(wrong.astype(np.uint8))
    sent, source, finder, result = run(alice, bob, 0.02)
    assert result.bits == alice
    assert len(sent) >= 2
    assert [len(more) for more in sent[1:]] == [frames.more_bits(more) for more in range(1, len(sent))]
    assert source.disclosed == finder.disclosed


def test_the_choice_of_a_code_uses_no_logarithm_of_the_machine(monkeypatch):
    """Two machines may round log2 differently; what is chosen must not depend on it."""
    expected = [frames_for(n, rate) for n in (5000, 100_000) for rate in (0.004, 0.01, 0.0333, 0.11)]
    for name in ("log", "log2", "log1p", "pow", "exp"):
        monkeypatch.setattr(math, name, lambda *_: 1 / 0)
    assert [frames_for(n, rate) for n in (5000, 100_000) for rate in (0.004, 0.01, 0.0333, 0.11)] == expected


def test_both_sides_choose_the_same_codes_in_every_release():
    """Changing a choice is a change of the protocol: count VERSION in ldpc_codes.py up."""
    chosen = [frames_for(n, k / 1000) for n in (1, 999, 65_536, 10**6, 10**7 + 1) for k in range(1, 150, 7)]
    assert (VERSION, hashlib.sha256(repr(chosen).encode()).hexdigest()[:16]) == (2, "50a1f7e886b49a37")


@pytest.mark.parametrize("number", [1, 2, 3, 1000, 999_999, 1_000_000])
def test_logarithms_in_integers_are_logarithms(number):
    assert abs(codes._logarithm(number) / 2**16 - math.log2(number)) < 2**-15


def test_more_errors_never_get_a_weaker_code():
    for n in (3000, 65_536, 1_000_000):
        told = [frames_for(n, rate).first_bits for rate in np.geomspace(0.001, RATE_MOST, 60)]
        assert all(later >= 0.97 * earlier for earlier, later in pairwise(told))
        assert told[-1] <= 0.95 * n


def test_above_the_cap_nothing_is_sent_or_asked():
    alice, _ = keys(60_000, 0.02)
    frames = frames_for(60_000, 0.02)
    tight = Limits(parities=frames.first_bits * frames.count * 3 // 4)
    for side in (Source, Finder):
        with pytest.raises(ReconciliationFailed, match="the cap is"):
            side(alice, 0.02, tight)
    limits = Limits(parities=frames.count * (frames.first_bits + frames.more_bits(1) + 2))
    source = Source(alice, 0.02, limits)
    source.first()
    every = BitString.from_array(np.ones(frames.count, dtype=np.uint8))
    source.more(every)
    before = source.disclosed
    with pytest.raises(ReconciliationFailed, match="the cap is"):
        source.more(every)
    assert source.disclosed == before
    assert source.disclosed.parities_a == limits.parities


def test_an_estimate_that_is_high_by_chance_does_not_cost_the_block():
    """The cap is fixed before the block: both sides then take the code that fits below it, with a round to spare."""
    alice, bob = keys(100_000, 0.02)
    limits = Limits(parities=round(1.3 * 100_000 * binary_entropy(0.02)))
    assert frames_for(100_000, 0.026).first_bits > limits.parities
    _, source, _, result = run(alice, bob, 0.026, limits)
    assert result.bits == alice
    assert source.disclosed.parities_a <= limits.parities


def test_a_peer_cannot_ask_too_often_for_no_frame_for_another_number_or_for_a_decoded_one(monkeypatch):
    monkeypatch.setattr(codes, "_FRAME_MOST", 20_000)
    source = Source(keys(60_000, 0.02)[0], 0.02, LIMITS)
    count = frames_for(60_000, 0.02).count
    assert count == 3
    every, second = (BitString.from_array(np.array(named, dtype=np.uint8)) for named in ((1, 1, 1), (0, 1, 0)))
    with pytest.raises(RemoteProtocolError, match="out of turn"):
        source.more(every)
    source.first()
    before = source.disclosed
    for wrong in (np.zeros(count), np.ones(count + 1), np.ones(0)):
        with pytest.raises(RemoteProtocolError):
            source.more(BitString.from_array(wrong.astype(np.uint8)))
    assert source.disclosed == before
    source.more(second)
    told = source.disclosed
    for other in (every, BitString.from_array(np.array((1, 0, 0), dtype=np.uint8))):
        with pytest.raises(RemoteProtocolError, match="was decoded"):
            source.more(other)
    assert source.disclosed == told
    for _ in range(ROUNDS_MORE - 1):
        source.more(second)
    for again in (lambda: source.more(second), source.first):
        with pytest.raises((RemoteProtocolError, LocalProtocolError)):
            again()


@pytest.mark.parametrize("change", [-1, 1, -64])
def test_a_syndrome_of_another_length_is_refused_and_changes_nothing(change):
    alice, bob = keys(60_000, 0.02)
    syndrome, finder = Source(alice, 0.025, LIMITS).first(), Finder(bob, 0.025, LIMITS)
    bits = np.resize(syndrome.to_array(), len(syndrome) + change)
    with pytest.raises(RemoteProtocolError, match="were due"):
        finder.take(BitString.from_array(bits))
    done = finder.take(syndrome)
    assert isinstance(done, Corrected)
    assert done.bits == alice
    with pytest.raises(RemoteProtocolError, match="none was due"):
        finder.take(syndrome)


def test_a_syndrome_of_other_bits_is_noticed_by_the_search():
    alice, bob = keys(60_000, 0.02)
    other, _ = keys(60_000, 0.02, seed=9)
    finder = Finder(bob, 0.025, LIMITS)
    source = Source(other, 0.025, LIMITS)
    result = finder.take(source.first())
    for _ in range(ROUNDS_MORE - 1):
        assert not isinstance(result, Corrected)
        result = finder.take(source.more(result))
    last = source.more(result)
    with pytest.raises(ReconciliationFailed, match="did not decode"):
        finder.take(last)
    assert alice != other


def test_the_rate_planned_for_is_above_the_one_seen():
    assert planned_rate(0.0, 100) > 0
    assert 0.02 < planned_rate(0.02, 100_000) < planned_rate(0.02, 1000) < 0.03
    assert planned_rate(0.0, 0) >= 0.4  # nothing is known


def test_no_bits_are_our_own_fault():
    with pytest.raises(LocalProtocolError):
        Source(BitString(b"", 0), 0.02, LIMITS)
