"""Two honest sites: what crosses the wire, in which order, and who may deliver what when."""

from __future__ import annotations

from itertools import groupby

import pytest

from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS
from heliograph.authentication.pads import PadRole
from heliograph.errors import LocalProtocolError
from heliograph.protocol import actions as a
from heliograph.protocol import records
from heliograph.protocol.codec import decode
from heliograph.protocol.frames import Direction, parse_frame
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair
from heliograph.types import BlockId

PAIRS = (("sae-a", "sae-b"), ("sae-b", "sae-a"))
DOWN, UP = Direction.TO_RECEIVER, Direction.TO_TRANSMITTER


def make(directory, name="pair", **options):
    return Pair(quick_registration(), quick_channel(), directory / name, **options)


def names(frames):
    """(direction, message) of each frame, repeated rounds of parities once."""
    found = [(d, type(decode(parse_frame(f).body)).__name__) for d, f in frames]
    rounds = {"ParityRequest", "ParityReply"}
    return [
        item
        for is_round, group in groupby(found, lambda item: item[1] in rounds)
        for item in (dict.fromkeys(group) if is_round else group)
    ]


def all_keys(pair):
    """Every key either side hands to a master, and the peer to the slave: key_ID -> materials."""
    found = {}
    for owner, master, slave in ((pair.tx, *PAIRS[0]), (pair.rx, *PAIRS[1])):
        for key_id, material in owner.deliverable(master, slave, 10_000):
            peer = pair.other(owner).keys.deliver_to_slave(slave, master, [key_id], 0.0)
            found[key_id] = (material, peer[0].material)
    return found


def test_both_sides_hold_the_same_keys(tmp_path):
    pair = make(tmp_path)
    for _ in range(3):
        pair.run_block()
    keys = all_keys(pair)
    # 7850 secret bits: the link's own keys of 1024 once, two pad sets of 1792, then keys of 256 in turns.
    length = quick_registration().parameters[0].secret_key_length
    assert len(keys) == (length - 1024 - 2 * 1792) // 256 + 2 * ((length - 2 * 1792) // 256)
    assert all(master == slave for master, slave in keys.values())
    assert len({material for material, _ in keys.values()}) == len(keys)


def test_the_same_seed_gives_the_same_transcript_and_keys(tmp_path):
    one, two = make(tmp_path, "one", seed=7), make(tmp_path, "two", seed=7)
    for pair in (one, two):
        pair.run_block()
        pair.run_block()
    assert one.frames == two.frames
    assert all_keys(one) == all_keys(two) != {}


def test_another_seed_gives_another_transcript_and_other_keys(tmp_path):
    one, two = make(tmp_path, "one", seed=7), make(tmp_path, "two", seed=8)
    for pair in (one, two):
        pair.run_block()
    assert not {f for _, f in one.frames} & {f for _, f in two.frames}
    assert not set(all_keys(one)) & set(all_keys(two))


def test_a_block_crosses_the_wire_in_this_order(tmp_path):
    pair = make(tmp_path, prefilter=False)
    pair.run_block()
    assert names(pair.frames) == [
        (DOWN, "Proposal"),
        (UP, "BlockAccepted"),
        (UP, "QuantumPhaseClosed"),
        (DOWN, "BasisReveal"),
        (UP, "ReconciliationStart"),
        (DOWN, "ParityReply"),
        (UP, "ParityRequest"),
        (UP, "ReconciliationEnd"),
        (DOWN, "VerificationChallenge"),
        (UP, "Verified"),
        (DOWN, "AmplificationSeed"),
        (UP, "ParticipantAccept"),
        (DOWN, "Decision"),
        (UP, "Acknowledgement"),
        (DOWN, "Settlement"),
    ]


def test_only_seven_frames_of_a_block_carry_a_tag(tmp_path):
    pair = make(tmp_path, prefilter=False)
    pair.run_block()
    tagged = [type(decode(parse_frame(f).body)).__name__ for _, f in pair.frames if parse_frame(f).tagged]
    assert len(tagged) == len(set(tagged)) == len(PadRole)
    assert [address.role for address, _ in sorted(pair.tx.tagged + pair.rx.tagged, key=lambda x: x[0].role)] == list(
        PadRole
    )


def persisted(side):
    return [type(item.action.record) for item in side.done if isinstance(item.action, a.Persist)]


def test_a_key_is_deliverable_only_with_the_peers_proof(tmp_path):
    pair = make(tmp_path)
    pair.begin_block()
    seen = set()
    while pair.advance():
        for side, (master, slave), proof in (
            (pair.tx, PAIRS[0], records.PeerAcknowledged),
            (pair.rx, PAIRS[1], records.PeerSettled),
        ):
            own = side.keys.counts(master, slave)
            held = side.keys.counts(slave, master).held
            proven = proof in persisted(side)
            seen.add((side.name, proven, bool(own.deliverable)))
            assert bool(own.deliverable) == proven
            if side is pair.rx:
                # The participant holds the decider's keys for its slave before the decider may name one.
                assert bool(held) == (records.ObeyedCommit in persisted(side))
        if records.PeerAcknowledged in persisted(pair.tx):
            assert records.ObeyedCommit in persisted(pair.rx)
    assert len(seen) == 4  # both sides were seen before and after


def test_a_refill_arrives_only_with_the_peers_proof(tmp_path):
    pair = make(tmp_path)
    before = pair.tx.records.assigned()
    assert before == BOOTSTRAP_BLOCKS
    pair.begin_block(refills=2)
    while pair.advance():
        for side, proof in ((pair.tx, records.PeerAcknowledged), (pair.rx, records.ObeyedCommit)):
            assert side.records.assigned() == before + (2 if proof in persisted(side) else 0)
    assert pair.tx.records.assigned() == pair.rx.records.assigned() == before + 2


def test_a_block_on_refilled_pads_runs_like_any_other(tmp_path):
    pair = make(tmp_path)
    blocks = [pair.run_block() for _ in range(5)]  # the first one ends the bootstrap, whose last block is the eighth
    assert pair.tx.finished() == pair.rx.finished() == blocks == [1, 9, 10, 11, 12]


def test_a_used_block_number_or_a_refill_too_large_cannot_begin(tmp_path):
    pair = make(tmp_path)
    block = pair.run_block()
    with pytest.raises(LocalProtocolError):
        pair.tx.running.begin(block, (50,))
    with pytest.raises(LocalProtocolError, match="cannot refill"):
        pair.tx.running.begin(BlockId(9), tuple(range(50, 60)))


def test_the_epsilon_ledger_grows_by_the_block_and_its_tags(tmp_path):
    pair = make(tmp_path)
    pair.run_block()
    for side in pair.sides:
        totals = side.records.totals()
        assert totals.bits_spent == 7 * 256  # all seven pads, whichever side made the tag
        assert totals.bits_refilled == 2 * 1792
        assert 2e-15 < totals.eps_total < 2e-15 + 1e-20
