"""Over whole runs: one byte string under each pad, each pad at its own address, and none comes back."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import PadsExhausted
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

FROM_RECEIVER = {PadRole.CLOSURE, PadRole.PARTICIPANT, PadRole.ACKNOWLEDGEMENT}


class NotingStore:
    """A PadStore that notes which pad it handed out for which address, and hands everything on."""

    def __init__(self, records):
        self._records = records
        self.burnt, self.tried = [], []

    def burn(self, address):
        pad = self._records.burn(address)
        self.burnt.append((address, pad.key))
        return pad

    def attempt(self, address):
        pad, count = self._records.attempt(address)
        self.tried.append((address, pad.key))
        return pad, count

    def accepted(self, address, forgery_bound):
        self._records.accepted(address, forgery_bound)


def make(directory, **options):
    pair = Pair(quick_registration(), quick_channel(), directory, **options)
    for side in pair.sides:
        side.authenticator = Authenticator(NotingStore(side.records))
    return pair


def stores(pair):
    return [side.authenticator._pads for side in pair.sides]


def test_no_two_byte_strings_under_one_pad(tmp_path):
    """Honest blocks, a hit one, and one that times out, on pads of the slot and of refills."""
    pair = make(tmp_path / "pair", prefilter=False)
    for number in range(14):
        if number % 5 == 3:
            pair.wire = lambda _, f: (f[:40] + bytes([f[40] ^ 4]) + f[41:] if len(f) > 1000 else f,)
        elif number % 5 == 4:
            pair.wire = lambda _, f: (f,) if len(f) < 4000 else ()
        else:
            pair.wire = lambda _, f: (f,)
        pair.run_block()
        pair.time_out()
    assert 5 <= len(pair.tx.finished()) < 14
    tagged = [item for side in pair.sides for item in side.tagged]
    assert max(Counter(address for address, _ in tagged).values()) == 1
    burnt = [item for store in stores(pair) for item in store.burnt]
    assert max(Counter(key for _, key in burnt).values()) == 1
    assert len(burnt) == len(tagged)


def test_a_pad_is_spent_only_at_its_address_and_direction(tmp_path):
    pair = make(tmp_path / "pair")
    for _ in range(4):
        pair.run_block()
    tx, rx = stores(pair)
    for maker, checker in ((tx, rx), (rx, tx)):
        assert dict(maker.burnt) == dict(checker.tried)
    assert {address.role for address, _ in rx.burnt} == FROM_RECEIVER
    assert {address.role for address, _ in tx.burnt} == set(PadRole) - FROM_RECEIVER
    keys = [key for _, key in tx.burnt + rx.burnt]
    assert len(set(keys)) == len(keys) == 4 * len(PadRole)
    assert not any(key in other for key in keys for _, frame in pair.frames for other in (frame,))


def test_burnt_pads_never_come_back_after_a_restart(tmp_path):
    pair = make(tmp_path / "pair")
    for _ in range(3):
        pair.run_block()
    for side in pair.sides:
        side.restart()
        for block in (1, 2, 8, 9, 10):  # those that ran, and those that the bootstrap left over
            for role in PadRole:
                with pytest.raises(PadsExhausted):
                    side.records.burn(PadAddress(1, block, role))
                with pytest.raises(PadsExhausted):
                    side.records.attempt(PadAddress(1, block, role))
    pair.connect()
    assert pair.run_block() == 11


def test_ten_thousand_junk_frames_cost_no_pad_and_no_attempt(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    before = [(s.records.marks(), s.records.totals(), s.attempts, s.running) for s in pair.sides]
    dice = random.Random(1)
    old = [frame for _, frame in pair.frames]
    for number in range(10_000):
        frame = dice.choice(old)
        at = dice.randrange(len(frame))
        junk = (
            dice.randbytes(dice.randrange(200)),
            frame,
            frame[:at] + bytes([frame[at] ^ 1 << dice.randrange(8)]) + frame[at + 1 :],
            frame[:at],
        )[number % 4]
        pair.inject(pair.sides[number % 2], junk)
    assert [(s.records.marks(), s.records.totals(), s.attempts, s.running) for s in pair.sides] == before
    assert sum(s.refused.count("junk") for s in pair.sides) == 10_000
    # And the link is as well as before.
    assert pair.run_block() == 9
    assert pair.tx.finished() == pair.rx.finished() == [1, 9]


def test_blocks_never_share_pads_and_a_discarded_block_keeps_none(tmp_path):
    pair = make(tmp_path / "pair", prefilter=False)
    pair.wire = lambda _, f: () if len(f) > 4000 else (f,)  # the closure never arrives
    lost = pair.run_block()
    pair.time_out()
    pair.wire = lambda _, f: (f,)
    for side in pair.sides:
        assert lost not in side.records.available(0)
        for role in PadRole:
            with pytest.raises(PadsExhausted):
                side.records.burn(PadAddress(1, lost, role))
    pair.run_block()
    assert {address.block for store in stores(pair) for address, _ in store.burnt} == {1, 2}
