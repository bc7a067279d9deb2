"""One link's blocks: several in flight, none touching another, and what an unknown block number may cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.errors import ConfigurationError, RemoteProtocolError
from heliograph.protocol import actions as a
from heliograph.protocol import commitment
from heliograph.protocol import messages as m
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.cutting import cut_block, key_counts, refills_fit
from heliograph.protocol.frames import Direction, Frame, parse_frame
from heliograph.protocol.session import BLOCKS_REMEMBERED
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair


def make(directory, **options):
    return Pair(quick_registration(), quick_channel(), directory, prefilter=False, **options)


def message(wire):
    return decode(parse_frame(wire).body)


def test_blocks_in_flight_share_nothing(tmp_path):
    """Three at once, interleaved frame by frame, one of them hit: the other two make their keys."""

    def eve(_, frame):
        hit = parse_frame(frame).block == 10 and isinstance(message(frame), m.BasisReveal)
        return (frame[:50] + bytes([frame[50] ^ 1]) + frame[51:],) if hit else (frame,)

    pair = make(tmp_path / "pair", wire=eve)
    pair.run_block(refills=3)
    blocks = [pair.begin_block() for _ in range(3)]
    pair.settle()
    pair.time_out()
    assert blocks == [9, 10, 11]
    assert sorted(pair.tx.finished()) == sorted(pair.rx.finished()) == [1, 9, 11]
    assert pair.tx.records.available(11) == pair.rx.records.available(11)
    assert pair.tx.records.assigned() == 17
    assert 14 not in pair.tx.records.available(11)  # what block 10 would have refilled


def test_frames_of_two_blocks_exchanged_by_eve_are_refused(tmp_path):
    held = []

    def eve(_, frame):
        if not isinstance(message(frame), m.BasisReveal):
            return (frame,)
        held.append(frame)
        if len(held) == 1:
            return ()
        one, two = (parse_frame(f) for f in held)
        return (replace(one, block=two.block).wire(), replace(two, block=one.block).wire())

    pair = make(tmp_path / "pair", wire=eve)
    pair.begin_block()
    pair.begin_block()
    pair.settle()
    pair.time_out()
    assert pair.tx.finished() == pair.rx.finished() == []


def down(block, said, **changes):
    frame = Frame(Direction.TO_RECEIVER, 1, block, 0, 0, encode(said), tagged=True, tag=bytes(16))
    return replace(frame, **changes).wire()


@pytest.mark.parametrize(
    "wire",
    [
        down(1, m.Decision(commit=False, refill_for=(), key_ids=b""), sequence=4),
        down(1, m.Settlement(), sequence=6),
        down(0, m.Proposal("test", quick_registration().digest())),
        down(1, m.Proposal("test", quick_registration().digest()), epoch=2),
        down(1, m.Proposal("test", quick_registration().digest()), direction=Direction.TO_TRANSMITTER),
        down(1, m.Proposal("other", quick_registration().digest())),
        down(1, m.Proposal("test", bytes(32))),
        down(1, m.BlockAbandoned("Eve"), tagged=False, tag=b""),
    ],
)
def test_a_frame_of_no_open_block_changes_nothing(tmp_path, wire):
    pair = make(tmp_path / "pair")
    before = pair.rx.running
    with pytest.raises(RemoteProtocolError):
        before.receive(wire)
    assert pair.rx.running is before
    assert pair.rx.running.blocks == {}


def test_a_forged_proposal_costs_one_attempt_and_no_block(tmp_path):
    """No block began: the number it names is still there for the real proposal, with all its pads."""
    pair = make(tmp_path / "pair")
    for block in (1, 3):
        pair.inject(pair.rx, down(block, m.Proposal("test", quick_registration().digest())))
    assert pair.rx.running.floor == 0
    assert pair.rx.running.blocks == {}
    assert pair.rx.attempts == 2
    assert pair.rx.discards() == []
    assert [pair.run_block() for _ in range(3)] == [1, 9, 10]
    assert pair.tx.finished() == pair.rx.finished() == [1, 9, 10]


def test_forged_proposals_fill_no_memory(tmp_path):
    pair = make(tmp_path / "pair")
    for block in range(20, 400):
        pair.inject(pair.rx, down(block, m.Proposal("test", quick_registration().digest())))
    assert pair.rx.running.blocks == {}
    assert pair.run_block() == 1


def test_ended_blocks_are_forgotten_in_time(tmp_path):
    """Their last words are in the store; memory holds the newest."""
    pair = make(tmp_path / "pair")
    for block in range(20, 20 + 2 * BLOCKS_REMEMBERED):
        session = pair.rx.running
        pair.rx.session = replace(session, blocks={**session.blocks, block: commitment.Ended()})
    pair.run_block()
    assert len(pair.rx.running.blocks) == BLOCKS_REMEMBERED
    assert 20 + 2 * BLOCKS_REMEMBERED - 1 in pair.rx.running.blocks


def test_an_acceptance_of_a_lost_block_is_answered_with_a_tagged_abort(tmp_path):
    """The decider lost the block to a crash; the participant is COMMITTED_LOCAL and asks until it hears."""
    pair = make(tmp_path / "pair", wire=lambda _, f: () if isinstance(message(f), m.ParticipantAccept) else (f,))
    pair.run_block()
    assert pair.rx.running.doubtful_blocks() == (1,)
    pair.crash(pair.tx)
    pair.wire = lambda _, f: (f,)
    pair.connect()
    assert pair.tx.discards() == pair.rx.discards() == ["Aborted"]
    assert pair.rx.running.doubtful_blocks() == pair.tx.running.doubtful_blocks() == ()
    # The same question again gets the same bytes.
    answers = [f for _, f in pair.frames if isinstance(message(f), m.Decision)]
    (accepted,) = {f for _, f in pair.frames if isinstance(message(f), m.ParticipantAccept)}
    pair.inject(pair.tx, accepted)
    assert [f for _, f in pair.frames if isinstance(message(f), m.Decision)] == answers * 2


def test_an_acceptance_of_a_block_without_pads_leaves_nothing_in_doubt(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    pair.crash(pair.tx)
    pair.connect()
    (accepted,) = {f for _, f in pair.frames if isinstance(message(f), m.ParticipantAccept)}
    forged = replace(parse_frame(accepted), block=0)
    pair.inject(pair.tx, forged.wire())
    assert pair.tx.running.doubtful_blocks() == ()
    assert pair.tx.running.blocks[0] == commitment.Ended()


def test_an_abort_that_nobody_hears_leaves_the_decider_free(tmp_path):
    """The participant lost the block before it committed to anything: there is nobody to acknowledge an abort."""
    pair = make(tmp_path / "pair", wire=lambda _, f: () if isinstance(message(f), m.AmplificationSeed) else (f,))
    pair.run_block()
    pair.crash(pair.rx)
    pair.wire = lambda _, f: (f,)
    pair.connect()
    pair.time_out()
    assert pair.tx.discards() == ["Aborted"]
    assert pair.tx.running.doubtful_blocks() == ()
    with pair.tx.database.reading() as cursor:
        left = cursor.execute("SELECT count(*) FROM link_pads WHERE block = 1 AND sealed IS NOT NULL").fetchone()
    assert left == (0,)


def test_last_words_do_not_answer_each_other(tmp_path):
    """Both sides hold a last word of an aborted block; Eve sends each to the other, and nothing echoes."""
    pair = make(tmp_path / "pair", wire=lambda _, f: () if isinstance(message(f), m.ParticipantAccept) else (f,))
    pair.run_block()
    pair.crash(pair.tx)
    pair.wire = lambda _, f: (f,)
    pair.connect()
    count = len(pair.frames)
    words = {type(message(f)).__name__: f for _, f in pair.frames}
    pair.inject(pair.rx, words["Decision"])
    pair.inject(pair.tx, words["Acknowledgement"])
    assert len(pair.frames) == count + 1


# What a block's bits become.
@pytest.mark.parametrize("block", [1, 8, 9])
@pytest.mark.parametrize("refills", [1, 2, 4])
@pytest.mark.parametrize("length", [1024 + 1792 + 512, 7850, 7850 + 255, 10_001])
def test_the_bits_of_a_block_are_counted_once(length, refills, block):
    registration = quick_registration()
    secret = BitString.from_array(np.random.default_rng(length).integers(0, 2, length, np.uint8))
    if not refills_fit(block, length, refills):
        assert (1024 if block <= 8 else 0) + refills * 1792 > length
        return
    cut = cut_block(block, secret, refills, registration)
    counts = key_counts(block, length, refills, registration)
    assert len(cut.link_keys) == (128 if block <= 8 else 0)
    assert (len(cut.transmitter_keys), len(cut.receiver_keys)) == counts
    turns = [key for pair in zip(cut.transmitter_keys, (*cut.receiver_keys, None), strict=False) for key in pair if key]
    joined = b"".join((cut.link_keys, *cut.pad_sets, *(key.material for key in turns)))
    assert secret.to_bytes().startswith(joined)
    assert length - 8 * len(joined) < 256
    assert {key.pair.master for key in cut.transmitter_keys} <= {"sae-a"}


def test_a_block_too_small_for_its_own_pads_is_not_registered():
    registration = quick_registration()
    small = replace(registration.parameters[0], secret_key_length=1024 + 1792 + 511)
    with pytest.raises(ConfigurationError, match="plan larger blocks") as caught:
        replace(registration, parameters=(small,))
    assert "3327 secret bits, 3328 are needed" in str(caught.value)


def test_a_decision_that_the_key_cannot_hold_is_refused_before_its_tag_is_tried(tmp_path):
    pair = make(tmp_path / "pair", wire=lambda _, f: () if isinstance(message(f), m.Decision) else (f,))
    pair.run_block()
    names = parse_frame(next(f for _, f in pair.frames if isinstance(message(f), m.Decision)))
    said = decode(names.body)
    for refill in ((9, 10, 11, 12, 13, 14, 15), (1,), (9, 9), (10, 9), ()):
        bent = replace(names, body=encode(m.Decision(commit=True, refill_for=refill, key_ids=said.key_ids)))
        with pytest.raises(RemoteProtocolError):
            pair.rx.running.receive(bent.wire())
    state = pair.rx.running.blocks[1]
    tight = replace(state, context=replace(state.context, length=1024 + 2 * 1792 - 1))
    bent = replace(names, body=encode(m.Decision(commit=True, refill_for=(9, 10), key_ids=b"")))
    with pytest.raises(RemoteProtocolError, match="a refill for 2 blocks from 4607 secret bits"):
        commitment.step(tight, a.Received(bent))
    assert pair.rx.attempts == 2  # proposal and transcript: no attempt was spent on these
