"""Two machines for recorded keys over one in-memory exchange: equal keys, or none."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliograph.bits import BitString
from heliograph.errors import (
    BlockDiscarded,
    HeliographError,
    LocalProtocolError,
    QBERTooHigh,
    RemoteProtocolError,
    VerificationFailed,
)
from heliograph.postprocessing.amplification import seed_size_bytes
from heliograph.postprocessing.secrecy.recorded import PhaseSample, Requirements
from heliograph.protocol import distillation as d
from heliograph.protocol import distillation_correction as correction
from heliograph.protocol import distillation_reference as reference
from heliograph.protocol import messages as m
from heliograph.protocol.actions import Compute, Computed, Draw, Drawn, Received, Send, Start
from heliograph.protocol.distillation_messages import Concluded, Opening, PassesSeed, decode, encode
from heliograph.protocol.frames import Direction, Frame, parse_frame
from heliograph.testing.randomness import SeededRandom

LOOSE = Requirements(1e-6, 1e-6)
USUAL = Requirements(1e-15, 1e-15)


def noisy(n, given_0=0.02, given_1=0.02, ones=0.5, seed=1):
    """Bits of the reference side, and the other side's with errors that depend on the bit."""
    rng = np.random.default_rng([seed, n])
    a = (rng.random(n) < ones).astype(np.uint8)
    wrong = rng.random(n) < np.where(a, given_1, given_0)
    return a, a ^ wrong.astype(np.uint8)


def runs(a, b, requirements=USUAL):
    return d.Run(BitString.from_array(a), requirements), d.Run(BitString.from_array(b), requirements)


@dataclass
class Pair:
    """Both machines and the wire between them. ``tamper(index, wire)`` sees each frame as bytes."""

    run_a: d.Run
    run_b: d.Run
    tamper: object = lambda _, wire: wire
    crossed: list = field(default_factory=list)
    seen: list = field(default_factory=list)  # (machine, state, event) of each step
    done: list = field(default_factory=list)  # (machine, event, actions) of each step
    seed: int = 7

    def go(self):
        """Run to the end of both; return their final states. Whatever a machine raises comes out."""
        self.states = {reference: reference.begin(self.run_a), correction: correction.begin(self.run_b)}
        self.randomness = SeededRandom(self.seed)
        self.queue = [(reference, Start()), (correction, Start())]
        while self.queue:
            self.feed(*self.queue.pop(0))
        return self.states[reference], self.states[correction]

    def feed(self, machine, event):
        state = self.states[machine]
        self.seen.append((machine, state, event))
        self.states[machine], actions = machine.step(state, event)
        self.done.append((machine, event, actions))
        for action in actions:
            if isinstance(action, Draw):
                self.queue.append((machine, Drawn(self.randomness.draw(action.size))))
            elif isinstance(action, Compute):
                self.queue.insert(0, (machine, Computed(action.job, action.function(*action.arguments))))
            else:
                assert isinstance(action, Send)
                wire = self.tamper(len(self.crossed), action.frame.wire())
                self.crossed.append(wire)
                other = correction if machine is reference else reference
                self.queue.append((other, Received(parse_frame(wire))))


def small(**more):
    return Pair(*runs(*noisy(4000, 0.01, 0.01), LOOSE), **more)


# --- Honest runs.


def test_answers_leave_before_they_are_taken_in():
    """The reference side's parities do not depend on the message they answer: both sides work at once."""
    pair = small()
    pair.go()
    taken = [actions for machine, event, actions in pair.done if machine is reference and isinstance(event, Received)]
    rounds = [actions for actions in taken if any(getattr(action, "job", "") == "learn" for action in actions)]
    requests = [wire for wire in pair.crossed if isinstance(decode(parse_frame(wire).body), m.ParityRequest)]
    assert len(rounds) == len(requests) > 3
    assert all([type(action) for action in actions] == [Send, Compute] for actions in rounds)


def test_whatever_takes_long_is_a_job_and_no_frame_is_taken_meanwhile():
    jobs = {(reference, job) for job in ("sample", "prepare", "learn", "conclude", "hash", "amplify")}
    jobs |= {(correction, job) for job in ("sample", "prepare", "correct", "verify", "amplify")}
    pair = small()
    pair.go()
    assert {(machine, event.job) for machine, _, event in pair.seen if isinstance(event, Computed)} == jobs
    for machine, state, event in pair.seen:
        if isinstance(event, Computed):
            assert isinstance(state, d.Working)
            with pytest.raises(RemoteProtocolError, match="Working"):
                machine.step(state, Received(next_frame(state, encode(m.Verified()))))


def test_the_classic_hash_gives_the_same_key_on_both_sides_and_another_than_the_default():
    a, b = noisy(8000, 0.01, 0.01)
    keys = {}
    for family in ("toeplitz", "modified-multiply-shift"):
        first, second = Pair(*(replace(run, family=family) for run in runs(a, b, LOOSE))).go()
        assert first.outcome == second.outcome
        keys[family] = first.outcome.key.bits
    assert len(keys["toeplitz"]) == len(keys["modified-multiply-shift"])
    assert keys["toeplitz"] != keys["modified-multiply-shift"]


def test_sides_that_were_told_different_hashes_make_no_key():
    one, other = runs(*noisy(4000, 0.01, 0.01), LOOSE)
    with pytest.raises(RemoteProtocolError, match="different requirements"):
        Pair(one, replace(other, family="toeplitz")).go()


@pytest.mark.parametrize(
    ("given_0", "given_1", "ones"),
    [(0.0, 0.0, 0.5), (0.02, 0.02, 0.5), (0.0, 0.03, 0.5), (0.035, 0.001, 0.5), (0.01, 0.02, 0.52), (0.02, 0.01, 0.47)],
)
def test_both_sides_end_with_the_same_key_whatever_the_errors_depend_on(given_0, given_1, ones):
    a, b = noisy(60_000, given_0, given_1, ones)
    first, second = Pair(*runs(a, b)).go()
    assert isinstance(first, d.Finished)
    assert isinstance(second, d.Finished)
    assert first.outcome == second.outcome
    counts, terms = first.outcome.counts, first.outcome.terms
    wrong = a != b
    assert (counts.zeros, counts.ones) == ((a == 0).sum(), (a == 1).sum())
    assert (counts.errors_given_0, counts.errors_given_1) == ((wrong & (a == 0)).sum(), (wrong & (a == 1)).sum())
    assert len(first.outcome.key.bits) == terms.secret_key_length > 0
    # Errors that depend on the bit bias the correcting side even where the reference side is fair.
    sigma = max(abs(2 * side.sum() - 60_000) / math.sqrt(60_000) for side in (a.astype(int), b.astype(int)))
    assert (terms.bias_deducted_bits > 0) == (sigma > 4)


def test_a_burst_of_errors_is_corrected():
    a, _ = noisy(60_000)
    b = a.copy()
    b[20_000:21_200] ^= 1
    first, second = Pair(*runs(a, b)).go()
    assert first.outcome == second.outcome
    assert first.outcome.counts.error_rate == pytest.approx(0.02, abs=1e-12)


def test_every_parity_that_crossed_is_charged_in_both_directions():
    pair = Pair(*runs(*noisy(60_000)))
    first, _ = pair.go()
    replies = [decode(parse_frame(wire).body) for wire in pair.crossed]
    parities = sum(reply.count for reply in replies if isinstance(reply, m.ParityReply))
    announced = 3 * (60_000).bit_length()  # errors, errors given 0, zeros
    disclosed = first.outcome.disclosed
    assert disclosed.parities_a == disclosed.parities_b == parities + announced
    assert disclosed.verification == 128
    assert first.outcome.terms.disclosed_bits == 2 * (parities + announced) + 128


def test_the_efficiency_is_that_of_a_good_cascade():
    first, _ = Pair(*runs(*noisy(100_000, 0.026, 0.026))).go()
    q = first.outcome.counts.error_rate
    entropy = -q * math.log2(q) - (1 - q) * math.log2(1 - q)
    assert first.outcome.disclosed.parities_a / (100_000 * entropy) < 1.08


def test_seeds_are_drawn_only_when_what_they_must_not_influence_is_final():
    """Passes after the openings, the hash after the last parity, amplification after the verdict (security.md 5)."""
    pair = small()
    pair.go()
    drawn = [(machine, type(state).__name__) for machine, state, event in pair.seen if isinstance(event, Drawn)]
    assert drawn == [(correction, "DrawingPasses"), (reference, "DrawingChallenge"), (reference, "DrawingSeed")]
    names = [type(decode(parse_frame(wire).body)).__name__ for wire in pair.crossed]
    assert names[:4] == ["Opening", "Opening", "PassesSeed", "ParityReply"]
    assert names[-6:] == [
        "ReconciliationEnd", "VerificationChallenge", "Verified", "AmplificationSeed", "Concluded", "Concluded",
    ]  # fmt: skip


def test_no_key_bit_is_printed_with_a_state():
    pair = small()
    first, _ = pair.go()
    text = first.outcome.key.bits.to_bytes()
    for machine, state, _ in pair.seen:
        assert repr(text)[2:20] not in repr(state)
        assert len(repr(state)) < 2000, (machine, type(state))


# --- Runs that give nothing.


def test_error_rates_beyond_any_key_end_early_and_say_so():
    a, _ = noisy(20_000)
    other, _ = noisy(20_000, seed=2)
    for b, says in ((other, "of the bits differ"), (a ^ 1, "inverted")):
        pair = Pair(*runs(a, b))
        with pytest.raises(QBERTooHigh, match=says):
            pair.go()
        assert len(pair.crossed) == 4  # the sample was enough


@pytest.mark.parametrize("rate", [0.055, 0.08, 0.12])
def test_error_rates_that_only_reconciliation_can_tell_end_without_a_key(rate):
    with pytest.raises(QBERTooHigh, match="no secret key"):
        Pair(*runs(*noisy(20_000, rate, rate))).go()


def test_keys_that_still_differ_are_discarded_by_verification():
    """The reference side's answers are of other bits than those it hashes, as after a missed error."""
    pair = small()

    def tamper(_, wire):
        frame = parse_frame(wire)
        message = decode(frame.body)
        if isinstance(message, m.VerificationChallenge):
            return replace(frame, body=encode(m.VerificationChallenge(message.seed, bytes(16)))).wire()
        return wire

    pair.tamper = tamper
    with pytest.raises(VerificationFailed):
        pair.go()


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        (Requirements(1e-5, 1e-6), "different requirements"),
        (Requirements(1e-6, 1e-5), "different requirements"),
        (Requirements(1e-6, 1e-6, strict=True), "different requirements"),
        (Requirements(1e-6, 1e-6, sample=PhaseSample(10**6, 1)), "different requirements"),
    ],
)
def test_no_side_takes_a_parameter_from_the_other(theirs, says):
    a, b = noisy(4000, 0.01, 0.01)
    pair = Pair(d.Run(BitString.from_array(a), LOOSE), d.Run(BitString.from_array(b), theirs))
    with pytest.raises(RemoteProtocolError, match=says):
        pair.go()
    assert len(pair.crossed) == 1


def test_keys_of_unequal_length_are_refused_at_the_first_message():
    a, b = noisy(4001, 0.01, 0.01)
    with pytest.raises(RemoteProtocolError, match="4001 bits here, 4000 on the other side"):
        Pair(*runs(a, b[:-1], LOOSE)).go()


def test_too_few_bits_and_a_refused_bias_end_the_run():
    with pytest.raises(BlockDiscarded, match="too few"):
        Pair(*runs(*noisy(200))).go()
    with pytest.raises(BlockDiscarded, match="biased"):
        Pair(*runs(*noisy(60_000, ones=0.53), Requirements(1e-15, 1e-15, strict=True))).go()


def test_what_the_peer_gave_up_for_is_said():
    pair = small()
    pair.go()
    for machine, state, event in pair.seen:
        if isinstance(event, Received) and not isinstance(decode(event.frame.body), Concluded):
            other = Direction.TO_RECEIVER if state.talk.own is Direction.TO_TRANSMITTER else Direction.TO_TRANSMITTER
            peer = replace(
                state, talk=replace(d.talk(state.run, other), sent=state.talk.received, received=state.talk.sent)
            )
            farewell = d.abandonment(peer, "no light " * 99)
            with pytest.raises(d.PeerGaveUp, match="no light"):
                machine.step(state, Received(farewell))


# --- Damage and lies.


def test_a_flipped_bit_anywhere_never_leaves_both_sides_with_a_key():
    """Sixteen flips in every frame of a run, header included."""
    rng = np.random.default_rng(5)
    frames = len(_crossed())
    outcomes = set()
    for index in range(frames):
        for _ in range(16):
            place = rng.integers(0, 2**32)

            def tamper(at, wire, index=index, place=int(place)):
                if at != index:
                    return wire
                bit = place % (8 * len(wire))
                flipped = bytearray(wire)
                flipped[bit // 8] ^= 1 << bit % 8
                return bytes(flipped)

            pair = small(tamper=tamper)
            try:
                states = pair.go()
            except HeliographError as why:
                outcomes.add(type(why).__name__)
            else:
                assert not all(isinstance(state, d.Finished) for state in states)
                outcomes.add("no end")
    assert {"RemoteProtocolError", "BlockDiscarded", "VerificationFailed"} <= outcomes


def _crossed():
    pair = small()
    pair.go()
    return pair.crossed


def test_a_changed_amplification_seed_is_noticed_although_nothing_after_it_is_hashed():
    def tamper(_, wire):
        frame = parse_frame(wire)
        message = decode(frame.body)
        if isinstance(message, m.AmplificationSeed):
            seed = bytes([message.seed[0] ^ 1]) + message.seed[1:]
            return replace(frame, body=encode(m.AmplificationSeed(message.length, seed))).wire()
        return wire

    with pytest.raises(BlockDiscarded, match="different messages"):
        small(tamper=tamper).go()


@pytest.mark.parametrize("change", [-1, 1, 10**6])
def test_the_length_comes_from_the_transcript_never_from_the_peer(change):
    def tamper(_, wire):
        frame = parse_frame(wire)
        message = decode(frame.body)
        if isinstance(message, m.AmplificationSeed):
            return replace(frame, body=encode(m.AmplificationSeed(message.length + change, message.seed))).wire()
        return wire

    with pytest.raises(RemoteProtocolError, match="amplifies to"):
        small(tamper=tamper).go()


LIES = {
    "errors": lambda r: (tuple(x + 1 for x in r.key_errors), r.zeros, r.errors_given_0 + 1, r.ones, r.errors_given_1),
    "zeros": lambda r: (r.key_errors, r.zeros + 1, r.errors_given_0, r.ones - 1, r.errors_given_1),
    "shifted": lambda r: (r.key_errors, r.zeros, r.errors_given_0 - 1, r.ones, r.errors_given_1 + 1),
}


@pytest.mark.parametrize("name", LIES)
def test_false_error_counts_are_refused_or_end_in_different_figures(name):
    """A count that contradicts nothing shows in the digest of what both sides saw."""

    def tamper(_, wire):
        frame = parse_frame(wire)
        message = decode(frame.body)
        if isinstance(message, m.ReconciliationEnd):
            lie = m.ReconciliationEnd(*LIES[name](message), message.parities_a, message.parities_b)
            return replace(frame, body=encode(lie)).wire()
        return wire

    with pytest.raises((RemoteProtocolError, BlockDiscarded)):
        small(tamper=tamper).go()


HONEST = small()
HONEST.go()
SAMPLES = [
    Opening(4000, 1e-6, 1e-6, strict=False, sample_bits=0, sample_errors=0, family="modified-multiply-shift"),
    PassesSeed(bytes(32), 8, bytes(1)),
    m.ParityRequest(8, bytes(1)),
    m.ParityReply(1, b"\0"),
    m.ReconciliationEnd((0,), 0, 0, 0, 0, 0, 0),
    m.VerificationChallenge(bytes(32), bytes(16)),
    m.Verified(),
    m.AmplificationSeed(1, bytes(seed_size_bytes(4000))),
    Concluded(bytes(32)),
]
LEGAL = {
    (reference, "AwaitingOpening"): Opening,
    (reference, "AwaitingPasses"): PassesSeed,
    (reference, "Answering"): (m.ParityRequest, m.ReconciliationEnd),
    (reference, "AwaitingVerdict"): m.Verified,
    (reference, "AwaitingConclusion"): Concluded,
    (correction, "AwaitingOpening"): Opening,
    (correction, "AwaitingSample"): m.ParityReply,
    (correction, "AwaitingParities"): m.ParityReply,
    (correction, "AwaitingChallenge"): m.VerificationChallenge,
    (correction, "AwaitingSeed"): m.AmplificationSeed,
    (correction, "AwaitingConclusion"): Concluded,
}


def next_frame(state, body):
    """Return a frame as the peer would number it next."""
    towards = Direction(1 - state.talk.own)
    return Frame(towards, 0, 0, len(state.talk.received), len(state.talk.sent), body)


def test_every_message_out_of_its_state_is_refused():
    states = {(machine, type(state).__name__): state for machine, state, _ in HONEST.seen}
    finals = {(machine, "Finished"): state for machine, state in HONEST.states.items()}
    assert set(LEGAL) < set(states)
    for (machine, name), state in (states | finals).items():
        for message in SAMPLES:
            if not isinstance(message, LEGAL.get((machine, name), ())):
                with pytest.raises(RemoteProtocolError, match=name):
                    machine.step(state, Received(next_frame(state, encode(message))))
        for event in (Start(), Drawn(bytes(32))):
            expected = {"New": Start, "DrawingPasses": Drawn, "DrawingChallenge": Drawn, "DrawingSeed": Drawn}
            if not isinstance(event, expected.get(name, ())):
                with pytest.raises(LocalProtocolError, match=name):
                    machine.step(state, event)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=60), st.data())
def test_random_bytes_are_never_accepted_in_any_state(body, data):
    for machine, state, event in HONEST.seen:
        if isinstance(event, Received):
            with pytest.raises(RemoteProtocolError):
                machine.step(state, Received(next_frame(state, body)))
    with pytest.raises(RemoteProtocolError):
        parse_frame(data.draw(st.binary(max_size=26)))


def test_frames_out_of_turn_reflected_or_tagged_are_refused():
    for machine, state, event in HONEST.seen:
        if isinstance(event, Received):
            good = event.frame
            for bad in (
                replace(good, sequence=good.sequence + 1),
                replace(good, direction=Direction(1 - good.direction)),
                replace(good, epoch=1),
                replace(good, block=1),
                replace(good, last_seen=len(state.talk.sent) + 1),
                replace(good, tagged=True, tag=bytes(16)),
            ):
                with pytest.raises(RemoteProtocolError):
                    machine.step(state, Received(bad))


@given(st.sampled_from(SAMPLES), st.binary(min_size=1, max_size=3))
def test_a_message_has_one_encoding(message, more):
    body = encode(message)
    assert decode(body) == message
    with pytest.raises(RemoteProtocolError):
        decode(body + more)
