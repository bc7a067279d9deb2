"""Floods of forged packets, before and after a reconnect: no pad, no attempt beyond its limit, no way in."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import PadsExhausted
from heliograph.protocol import actions as a
from heliograph.protocol.codec import decode
from heliograph.protocol.frames import parse_frame
from heliograph.storage.link_records import ATTEMPTS_MAX
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair


def make(directory, **options):
    return Pair(quick_registration(), quick_channel(), directory, **options)


def ledgers(pair):
    return [(side.records.marks(), side.records.totals(), side.records.budget(), side.attempts) for side in pair.sides]


@pytest.mark.slow
def test_a_million_forged_packets_burn_no_pad(tmp_path):
    """Random ones, and changed copies of all that ever crossed, at both sites."""
    pair = make(tmp_path / "pair")
    pair.run_block()
    before = ledgers(pair)
    dice = random.Random(5)
    seen = [frame for _, frame in pair.frames if len(frame) < 400]
    passed = 0
    for number in range(1_000_000):
        frame = seen[number % len(seen)]
        at = dice.randrange(len(frame))
        forged = frame[:at] + bytes([frame[at] ^ (1 + number % 255)]) + frame[at + 1 :]
        passed += pair.sides[number & 1].incoming.open(forged) is not None
    assert passed == 0
    assert ledgers(pair) == before
    assert pair.run_block() == 9
    assert pair.tx.finished() == pair.rx.finished() == [1, 9]


def test_junk_then_reconnect_gives_a_forger_no_fresh_attempts(tmp_path):
    """Attempts on a pad are counted on the disk: a reconnect and a restart between them change nothing."""
    pair = make(tmp_path / "pair", prefilter=False)
    records, address = pair.rx.records, PadAddress(1, 1, PadRole.PROPOSAL)
    for number in range(ATTEMPTS_MAX):
        _, attempts = records.attempt(address)
        assert attempts == number + 1
        if number % 100 == 50:
            pair.connect()
        if number % 300 == 200:
            pair.rx.restart()
            records = pair.rx.records
            pair.connect()
    with pytest.raises(PadsExhausted):
        records.attempt(address)
    pair.rx.restart()
    with pytest.raises(PadsExhausted):
        pair.rx.records.attempt(address)


def test_a_forged_closure_costs_its_block_once_and_no_other(tmp_path):
    """After a wrong tag there is no second try: the block is destroyed whole, the next one is as good as ever."""
    pair = make(tmp_path / "pair", prefilter=False)

    def eve(_, frame):
        if type(decode(parse_frame(frame).body)).__name__ != "QuantumPhaseClosed" or pair.tx.discards():
            return (frame,)
        forged = replace(parse_frame(frame), tag=bytes(16)).wire()
        return (forged, frame, forged)

    pair.wire = eve
    pair.run_block()
    pair.time_out()
    assert pair.tx.discards() == ["AuthenticationFailed"]
    checks = [x for x in pair.tx.done if isinstance(x.action, a.CheckTag)]
    assert len(checks) == 1
    assert pair.run_block() == 2
    assert pair.tx.finished() == pair.rx.finished() == [2]
