"""Whoever broke the pre-filter and forges proposals changes no block, no pool and no memory."""

import dataclasses

import pytest

from heliograph.errors import RemoteProtocolError
from heliograph.protocol.codec import encode
from heliograph.protocol.frames import BLOCKS_MAX, Direction, Frame, parse_frame
from heliograph.protocol.messages import Proposal
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

REGISTRATION = quick_registration()


def forged(block):
    body = encode(Proposal(REGISTRATION.steady, REGISTRATION.digest()))
    frame = Frame(Direction.TO_RECEIVER, 1, block, 0, 0, body, tagged=True)
    return dataclasses.replace(frame, tag=bytes(16)).wire()


def test_forged_proposals_empty_no_pool(tmp_path):
    pair = Pair(REGISTRATION, quick_channel(), tmp_path, prefilter=False)
    before = pair.rx.records.marks()
    for block in (1, 2, 3, 1, 2, 3, 50, 5000, BLOCKS_MAX - 1):
        pair.inject(pair.rx, forged(block))
    assert pair.rx.records.marks() == before
    assert pair.rx.running.blocks == {}
    pair.run_block()
    assert pair.rx.finished() == pair.tx.finished() == [1]


def test_a_block_number_beyond_the_stores_integers_is_refused_before_it_gets_there():
    with pytest.raises(RemoteProtocolError, match="no link has that many"):
        parse_frame(forged(2**63))
