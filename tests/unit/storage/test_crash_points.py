"""A crash of either site between any two actions of a block, over the real stores: both sites agree afterwards."""

from __future__ import annotations

import pytest

from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import PadsExhausted
from heliograph.protocol import actions as a
from heliograph.protocol.codec import decode
from heliograph.protocol.frames import parse_frame
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

SAES = (("sae-a", "sae-b"), ("sae-b", "sae-a"))


class PowerCut(Exception):
    """The site is off."""


class FragilePair(Pair):
    """Loses power just before the ``cut``-th action of either site; the cut one starts again from its store."""

    def __init__(self, directory, cut):
        self.actions, self.cut, self.cut_at = 0, -1, None
        super().__init__(quick_registration(), quick_channel(), directory, prefilter=False)
        self.cut = cut
        self.actions = 0

    def _do(self, side, block, action):
        if self.actions == self.cut:
            self.cut_at = (side, action)
            self.actions += 1
            raise PowerCut
        self.actions += 1
        return super()._do(side, block, action)

    def run_with_cut(self):
        try:
            self.run_block()
        except PowerCut:
            side, _ = self.cut_at
            self.crash(side)
        return self


def handed_out(pair):
    keys = {}
    for owner, (master, slave) in zip(pair.sides, SAES, strict=True):
        for key_id, material in owner.deliverable(master, slave, 10_000):
            peer = pair.other(owner).keys.deliver_to_slave(slave, master, [key_id], 0.0)
            keys[key_id] = (material, peer[0].material)
    return keys


def assert_one_string_under_each_pad(pair):
    """Of all frames that ever left, no two different ones carry a tag of one pad."""
    roles = ("Proposal", "QuantumPhaseClosed", "AmplificationSeed", "ParticipantAccept", "Decision")
    roles += ("Acknowledgement", "Settlement")
    left = {}
    for _, wire in pair.frames:
        frame = parse_frame(wire)
        if frame.tagged:
            role = PadRole(roles.index(type(decode(frame.body)).__name__))
            left.setdefault(PadAddress(frame.epoch, frame.block, role), set()).add(wire)
    assert all(len(strings) == 1 for strings in left.values())


def assert_agreed(pair):
    keys = handed_out(pair)
    assert all(ours == theirs for ours, theirs in keys.values())
    made = [{(e, b) for e, b, _ in side.commits.committed_blocks()} for side in pair.sides]
    assert made[0] == made[1]
    for side in pair.sides:
        assert not side.running.doubtful_blocks(), side.name
        assert not side.running.open_blocks(), side.name
        for master, slave in SAES:
            counts = side.keys.counts(master, slave)
            assert (counts.pending, counts.deliverable) == (0, 0)
        with side.database.reading() as cursor:
            assert cursor.execute("SELECT count(*) FROM link_blocks WHERE sealed_secret IS NOT NULL").fetchone() == (0,)
            used = cursor.execute(
                "SELECT count(*) FROM link_pads WHERE sealed IS NOT NULL AND block IN (SELECT block FROM link_blocks)"
            ).fetchone()
            assert used == (0,), "pads of a block that is over"
    assert_one_string_under_each_pad(pair)
    return made[0], keys


def block_actions(directory):
    pair = FragilePair(directory, -1)
    pair.run_block()
    return [type(item.action) for side in pair.sides for item in side.done], pair.actions


@pytest.fixture(scope="module")
def total(tmp_path_factory):
    kinds, count = block_actions(tmp_path_factory.mktemp("count") / "pair")
    assert {a.Persist, a.Tag, a.CheckTag, a.Send, a.Finish} <= set(kinds)
    return count


def cut_and_recover(directory, cut):
    pair = FragilePair(directory, cut).run_with_cut()
    assert pair.cut_at is not None
    pair.connect()  # what was decided is repeated here
    pair.time_out()
    blocks, keys = assert_agreed(pair)
    assert bool(blocks) == bool(keys)
    # The link goes on, on fresh pads.
    pair.run_block()
    after, more = assert_agreed(pair)
    assert len(after) == len(blocks) + 1
    assert more
    return pair, bool(blocks)


@pytest.mark.slow
def test_a_crash_between_any_two_actions_of_the_commit_protocol(tmp_path, total):
    """The last actions of a block, from the decider's transcript tag on, one by one."""
    assert_lost_or_kept_by_both(tmp_path, range(total - 34, total))


def assert_lost_or_kept_by_both(directory, cuts):
    """Assert that a participant's crash costs the block up to COMMITTED_LOCAL, a decider's up to its decision."""
    kept = {"tx": [], "rx": []}
    for cut in cuts:
        pair, both = cut_and_recover(directory / str(cut), cut)
        side, action = pair.cut_at
        kept[side.name].append((both, action))
    for name, record in (("rx", "CommittedLocal"), ("tx", "DecidedCommit")):
        outcomes = [both for both, _ in kept[name]]
        assert outcomes == sorted(outcomes)
        last_lost = [action for both, action in kept[name] if not both][-1]
        assert type(last_lost.record).__name__ == record


@pytest.mark.slow
def test_a_crash_between_any_two_actions_of_a_block(tmp_path, total):
    assert_lost_or_kept_by_both(tmp_path, range(total))


@pytest.mark.slow
def test_two_crashes_in_one_block(tmp_path, total):
    """After every crash in the commit protocol, another one during the recovery from it."""
    for cut in range(total - 34, total, 2):
        for again in range(1, 12, 2):
            pair = FragilePair(tmp_path / f"{cut} {again}", cut).run_with_cut()
            pair.cut = pair.actions + again
            pair.cut_at = None
            try:
                pair.connect()
                pair.time_out()
                pair.run_block()
            except PowerCut:
                pair.crash(pair.cut_at[0])
            pair.connect()
            pair.time_out()
            assert_agreed(pair)


def test_the_pads_of_a_crashed_block_are_never_used_again(tmp_path, total):
    for cut in range(3, total, 7):
        pair = FragilePair(tmp_path / str(cut), cut).run_with_cut()
        used = {address for side in pair.sides for address, _ in side.tagged}
        pair.connect()
        pair.time_out()
        expected = 9 if pair.tx.finished() else 2
        following = pair.run_block()
        assert following == expected
        for side in pair.sides:
            for address in used:
                if address.block == following:
                    continue
                with pytest.raises(PadsExhausted):
                    side.records.burn(address)
