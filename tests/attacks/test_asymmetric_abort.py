"""Eve drops the one message after which the two sites think differently of a block; they never end differently."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliograph.protocol.codec import decode
from heliograph.protocol.frames import parse_frame
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

COMMIT = ("ParticipantAccept", "Decision", "Acknowledgement", "Settlement")


def make(directory, method):
    return Pair(replace(quick_registration(), bootstrap=method), quick_channel(), directory, prefilter=False)


def kept(pair):
    """Return the blocks whose keys each side has, or may yet hand out."""
    return [{block for _, block, _ in side.commits.committed_blocks()} for side in pair.sides]


@pytest.mark.parametrize("method", ["psk", "pki", "psk+pki"])
@pytest.mark.parametrize("lost", COMMIT)
@pytest.mark.parametrize("times", [1, 3])
def test_a_message_of_the_commit_protocol_lost_again_and_again_ends_alike_on_both_sides(tmp_path, method, lost, times):
    pair = make(tmp_path / "pair", method)
    dropped = []

    def eve(_, frame):
        if type(decode(parse_frame(frame).body)).__name__ == lost and len(dropped) < times:
            dropped.append(frame)
            return ()
        return (frame,)

    pair.wire = eve
    pair.run_block()
    for _ in range(times + 1):
        pair.connect()
    assert dropped
    assert kept(pair) == [{1}, {1}]
    assert [side.running.doubtful_blocks() for side in pair.sides] == [(), ()]
    assert pair.run_block() == 9


@pytest.mark.parametrize("method", ["psk", "pki"])
def test_one_side_accepts_and_the_other_gives_up_and_neither_keeps_a_key(tmp_path, method):
    """The participant is COMMITTED_LOCAL when the decider's time runs out: abort, for both."""
    pair = make(tmp_path / "pair", method)
    held = []

    def eve(_, frame):
        if type(decode(parse_frame(frame).body)).__name__ == "ParticipantAccept" and not held:
            held.append(frame)
            return ()
        return (frame,)

    pair.wire = eve
    pair.run_block()
    assert pair.rx.running.doubtful_blocks() == (1,)
    pair.time_out()
    pair.inject(pair.tx, held[0])  # too late: the decision is final
    pair.connect()
    assert kept(pair) == [set(), set()]
    for side in pair.sides:
        assert side.running.doubtful_blocks() == ()
        with side.database.reading() as cursor:
            assert cursor.execute("SELECT count(*) FROM key_records").fetchone() == (0,)
            assert cursor.execute("SELECT count(*) FROM link_keys").fetchone() == (0,)
    assert pair.run_block() == 2
    assert kept(pair) == [{2}, {2}]
