"""One-way reconciliation: every bit sent is charged, failures are said, and a peer cannot make us do more."""

from __future__ import annotations

import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, ReconciliationFailed, RemoteProtocolError
from heliograph.postprocessing.reconciliation.charging import charged
from heliograph.postprocessing.reconciliation.codes import frames_for
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
    if not isinstance(result, Corrected):
        sent.append(source.more(result))
        result = finder.take(sent[1])
    return sent, source, finder, result


@pytest.mark.parametrize(
    ("n", "qber"), [(1000, 0.02), (60_000, 0.001), (100_000, 0.02), (100_000, 0.05), (65_537, 0.1)]
)
def test_errors_are_found_and_every_bit_sent_is_charged(n, qber):
    alice, bob = keys(n, qber)
    sent, source, finder, result = run(alice, bob, 1.15 * qber)
    assert result.bits == alice
    assert result.disclosed == source.disclosed == finder.disclosed
    crossed = sum(len(one) for one in sent)
    named = frames_for(n, 1.15 * qber).count
    assert source.disclosed == Disclosed(crossed + named, named)
    assert charged(source.disclosed, "one_way") == crossed + 2 * named


@pytest.mark.parametrize(("qber", "most"), [(0.02, 1.45), (0.05, 1.45), (0.03, 1.45)])
def test_a_million_bits_are_reconciled_above_the_bound_and_below_a_ceiling(qber, most):
    alice, bob = keys(1_000_000, qber)
    _, source, _, result = run(alice, bob, qber)
    assert result.bits == alice
    assert 1 < source.disclosed.parities_a / (1_000_000 * binary_entropy(qber)) < most


def test_a_frame_that_does_not_decode_gets_more_once_and_is_charged_for_it():
    seconds = 0
    for seed in range(12):
        alice, bob = keys(50_000, 0.031, seed)
        try:
            sent, source, finder, result = run(alice, bob, 0.028)
        except ReconciliationFailed:
            continue
        assert result.bits == alice
        assert source.disclosed == finder.disclosed
        assert source.disclosed.parities_a >= sum(len(one) for one in sent)
        seconds += len(sent) == 2
    assert seconds


def test_far_too_many_errors_end_in_a_refusal_and_never_in_bits():
    alice, bob = keys(60_000, 0.08)
    with pytest.raises(ReconciliationFailed, match="did not decode"):
        run(alice, bob, 0.02)
    for rate in (0.3, 0.6, float("nan"), float("inf")):
        with pytest.raises(ReconciliationFailed, match="beyond every code"):
            Source(alice, rate, LIMITS)


def test_above_the_cap_nothing_is_sent_or_asked():
    alice, _ = keys(60_000, 0.02)
    tight = Limits(parities=frames_for(60_000, 0.02).first_bits * frames_for(60_000, 0.02).count)
    for side in (Source, Finder):
        with pytest.raises(ReconciliationFailed, match="the cap is"):
            side(alice, 0.02, tight)
    frames = frames_for(60_000, 0.02)
    source = Source(alice, 0.02, Limits(parities=frames.count * (frames.first_bits + 1)))
    source.first()
    with pytest.raises(ReconciliationFailed, match="the cap is"):
        source.more(BitString.from_array(np.ones(frames.count, dtype=np.uint8)))
    assert source.disclosed.parities_a == frames.count * (frames.first_bits + 1)


def test_a_peer_cannot_ask_twice_for_no_frame_or_for_another_number():
    source = Source(keys(60_000, 0.02)[0], 0.02, LIMITS)
    count = frames_for(60_000, 0.02).count
    every = BitString.from_array(np.ones(count, dtype=np.uint8))
    with pytest.raises(RemoteProtocolError):
        source.more(every)
    source.first()
    before = source.disclosed
    for wrong in (np.zeros(count), np.ones(count + 1), np.ones(0)):
        with pytest.raises(RemoteProtocolError):
            source.more(BitString.from_array(wrong.astype(np.uint8)))
    assert source.disclosed == before
    source.more(every)
    for again in (lambda: source.more(every), source.first):
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
    more = finder.take(Source(other, 0.025, LIMITS).first())
    assert not isinstance(more, Corrected)
    again = Source(other, 0.025, LIMITS)
    again.first()
    with pytest.raises(ReconciliationFailed):
        finder.take(again.more(more))
    assert alice != other


def test_the_rate_planned_for_is_above_the_one_seen():
    assert planned_rate(0.0, 100) > 0
    assert 0.02 < planned_rate(0.02, 100_000) < planned_rate(0.02, 1000) < 0.03
    assert planned_rate(0.0, 0) >= 0.4  # nothing is known


def test_no_bits_are_our_own_fault():
    with pytest.raises(LocalProtocolError):
        Source(BitString(b"", 0), 0.02, LIMITS)
