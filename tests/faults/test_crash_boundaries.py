"""A crash at each durable step of a block, on either side: what is left converges, and nothing is used twice."""

from collections import Counter
from dataclasses import replace

import pytest

from heliograph.protocol import actions as a
from heliograph.protocol.codec import decode
from heliograph.protocol.frames import parse_frame
from heliograph.protocol.registration import SaePair
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

CHANNEL = quick_channel()
METHODS = ("psk", "pki", "psk+pki")
SIZES = {  # of each direction, the link's 256 bits if empty
    "one size": ((), ()),
    "several": ((256, 128, 512, 264), (192,)),
}
DURABLE = (a.Tag, a.CheckTag, a.Persist, a.Discard)


class Crash(Exception):
    def __init__(self, side):
        super().__init__()
        self.side = side


class CrashingPair(Pair):
    """Ends one side before or after its ``point``-th durable action; ``points`` counts those of both sides."""

    def __init__(self, directory, name="", point=-1, *, after=False, method="psk", sizes="one size"):
        self.points = Counter()
        self.armed = None
        forth, back = SIZES[sizes]
        registration = replace(
            quick_registration(),
            bootstrap=method,
            transmitter_pairs=(SaePair("sae-a", "sae-b", key_sizes=forth),),
            receiver_pairs=(SaePair("sae-b", "sae-a", key_sizes=back),),
        )
        super().__init__(registration, CHANNEL, directory, prefilter=False)
        self.points.clear()
        self.armed = (name, point, after)

    def _do(self, side, block, action):
        here = False
        if isinstance(action, DURABLE):
            here = self.armed is not None and self.armed[:2] == (side.name, self.points[side.name])
            self.points[side.name] += 1
        if here and not self.armed[2]:
            raise Crash(side)
        event = super()._do(side, block, action)
        if here:
            raise Crash(side)
        return event

    def side(self, name):
        return self.tx if name == "tx" else self.rx


def points_of_a_block(tmp_path):
    pair = CrashingPair(tmp_path)
    pair.run_block()
    return pair.points


def everything_delivered(pair):
    """Take every key from both sides as their masters and slaves would; return {key_ID: material} of each role."""
    taken = {"masters": {}, "slaves": {}}
    link = pair.tx.registration
    for entry, owner, holder in (
        (link.transmitter_pairs[0], pair.tx, pair.rx),
        (link.receiver_pairs[0], pair.rx, pair.tx),
    ):
        for bits in link.sizes_of(entry):
            size = bits // 8
            count = owner.keys.stored_key_count(entry.master, entry.slave, size)
            if not count:
                continue
            keys = owner.keys.deliver_to_master(entry.master, entry.slave, count, 0.0, size_bytes=size)
            assert {len(key.material) for key in keys} == {size}
            taken["masters"].update((key.key_id, key.material) for key in keys)
            for named in keys:
                (key,) = holder.keys.deliver_to_slave(entry.slave, entry.master, [named.key_id], 0.0)
                taken["slaves"][key.key_id] = key.material
    return taken


def check_pads_on_the_wire(pair):
    """No two byte strings that left a site carry tags of one pad."""
    sent = {}
    for _, wire in pair.frames:
        frame = parse_frame(wire)
        if frame.tagged:
            pad = frame.epoch, frame.block, type(decode(frame.body)).__name__
            assert sent.setdefault(pad, wire) == wire, f"two byte strings under the pad of {pad}"
    assert sent


def test_a_block_has_durable_steps_on_both_sides(tmp_path):
    points = points_of_a_block(tmp_path)
    assert points["tx"] >= 7
    assert points["rx"] >= 6


@pytest.mark.parametrize(("method", "sizes"), [*((method, "one size") for method in METHODS), ("psk", "several")])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["tx", "rx"])
def test_a_crash_at_any_durable_step_converges(tmp_path, name, after, method, sizes):
    """Of a bootstrap block, whose keys must be at both sites before the bootstrap's door shuts at one."""
    (tmp_path / "whole").mkdir()
    for point in range(points_of_a_block(tmp_path / "whole")[name]):
        here = tmp_path / f"{point}"
        here.mkdir()
        pair = CrashingPair(here, name, point, after=after, method=method, sizes=sizes)
        crashed = None
        try:
            pair.run_block()
        except Crash as crash:
            crashed = crash.side
        assert crashed is pair.side(name), f"point {point} was not reached"
        pair.armed = None
        pair.crash(crashed)
        pair.connect()
        pair.time_out()  # what the peer will never answer is given up, as the shell does after a while
        # The link goes on, with both sides in step and no doubt left.
        pair.run_block()
        assert pair.tx.running.doubtful_blocks() == pair.rx.running.doubtful_blocks() == ()
        floor = pair.tx.running.floor
        assert pair.tx.records.available(floor) == pair.rx.records.available(floor) != []
        made = [[where[:2] for where in side.commits.committed_blocks()] for side in pair.sides]
        assert made[0] == made[1] != []
        taken = everything_delivered(pair)
        assert taken["masters"] == taken["slaves"]
        assert len(taken["masters"]) > 0
        check_pads_on_the_wire(pair)
        # Whatever was lost on the way, the bootstrap is over for both sites alike.
        doors = [side.records.door.generations() for side in pair.sides]
        assert doors[0] == doors[1]
        assert doors[0][0] == doors[0][1] > 0
