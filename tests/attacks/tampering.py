"""A wire that does one bad thing to one frame, and what both sites hold afterwards."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from heliograph.authentication.prefilter import FILTER_TAG_BYTES
from heliograph.protocol.codec import decode
from heliograph.protocol.frames import Direction, parse_frame
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

KINDS = (
    "flip",
    "drop",
    "duplicate",
    "replay",
    "swap",
    "truncate",
    "extend",
    "reflect",
    "other block",
    "other session",
    "other link",
    "other direction",
)
SAES = (("sae-a", "sae-b"), ("sae-b", "sae-a"))


@dataclass(frozen=True)
class Recording:
    """What honest pairs sent: ``first`` and ``second`` are the two blocks of one session, without pre-filter."""

    first: tuple[tuple[Direction, bytes], ...]
    second: tuple[tuple[Direction, bytes], ...]
    session: tuple[tuple[Direction, bytes], ...]
    link: tuple[tuple[Direction, bytes], ...]


def make(directory, *, seed=1, link="a-b", **options):
    registration = replace(quick_registration(), link=link)
    return Pair(registration, quick_channel(), directory, seed=seed, **options)


def record(directory):
    """Record honest runs to splice from."""
    pair = make(directory / "here", prefilter=False)
    pair.run_block()
    first = tuple(pair.frames)
    pair.run_block()
    others = []
    for name, options in (("session", {"seed": 2}), ("link", {"link": "a-c"})):
        other = make(directory / name, prefilter=False, **options)
        other.run_block()
        others.append(tuple(other.frames))
    return Recording(first, tuple(pair.frames[len(first) :]), *others)


def message_name(frame):
    return type(decode(parse_frame(frame).body)).__name__


class Tamperer:
    """Does ``kind`` to the ``index``-th frame that leaves; everything it needs comes from ``seed``."""

    def __init__(self, recording, kind, index, seed, *, sealed):
        self._recording, self._kind, self._index = recording, kind, index
        self._dice = random.Random(seed)
        self._sealed = sealed
        self._seen = []
        self._held = None
        self.pair = None
        self.done = self.changed = False

    def __call__(self, direction, frame):
        self._seen.append((direction, frame))
        if self._held is not None and self._held[0] == direction:
            (_, held), self._held = self._held, None
            return (frame, held)
        if len(self._seen) - 1 != self._index:
            return (frame,)
        bent = self._bend(direction, frame)
        self.done, self.changed = True, bent != (frame,)
        return bent

    def _bend(self, direction, frame):
        dice, kind = self._dice, self._kind
        if kind == "flip":
            bit = dice.randrange(8 * len(frame))
            bent = bytearray(frame)
            bent[bit // 8] ^= 1 << bit % 8
            return (bytes(bent),)
        if kind == "drop":
            return ()
        if kind == "duplicate":
            return (frame, frame)
        if kind == "replay":
            same = [f for d, f in self._seen[:-1] if d == direction]
            return (dice.choice(same), frame) if same else (frame, frame)
        if kind == "swap":
            self._held = (direction, frame)
            return ()
        if kind == "truncate":
            return (frame[: dice.randrange(len(frame))],)
        if kind == "extend":
            return (frame + bytes([dice.randrange(256)]),)
        if kind == "reflect":
            sender = self.pair.tx if direction is Direction.TO_RECEIVER else self.pair.rx
            self.pair._todo.append((sender, frame))
            return ()
        return (self._spliced(direction, frame),)

    def _spliced(self, direction, frame):
        bare = frame[:-FILTER_TAG_BYTES] if self._sealed else frame
        here = parse_frame(bare)
        sources = {
            "other block": self._recording.second,
            "other session": self._recording.session,
            "other link": self._recording.link,
            "other direction": self._recording.first,
        }
        turned = direction if self._kind != "other direction" else Direction(1 - direction)
        same = [f for d, f in sources[self._kind] if d == turned]
        alike = [f for f in same if message_name(f) == message_name(bare)]
        found = parse_frame(self._dice.choice(alike or same))
        # With the header made to fit: only what is inside gives it away.
        fitted = replace(
            found, direction=direction, block=here.block, sequence=here.sequence, last_seen=here.last_seen
        ).wire()
        return fitted + frame[-FILTER_TAG_BYTES:] if self._sealed else fitted


def attack(directory, recording, kind, index, seed, *, prefilter):
    """Run one block under attack; return the pair after time-outs, and whether any byte was really another."""
    eve = Tamperer(recording, kind, index, seed, sealed=prefilter)
    pair = make(directory, prefilter=prefilter)
    eve.pair, pair.wire = pair, eve
    pair.run_block()
    pair.wire = lambda _, frame: (frame,)
    pair.time_out()
    assert eve.done
    return pair, eve.changed


def take_keys(pair):
    """Hand out every key to the masters, then ask the peer's site for each: key_ID -> (master's, slave's or None)."""
    found = {}
    for owner, (master, slave) in zip(pair.sides, SAES, strict=True):
        for key_id, material in owner.deliverable(master, slave, 10_000):
            peer = pair.other(owner).keys
            held = peer.deliver_to_slave(slave, master, [key_id], 0.0)[0].material if peer.known(key_id) else None
            found[key_id] = (material, held)
    return found


def assert_no_harm(pair):
    """Never a key on one side only, never two keys under one name; after an honest reconnection both agree."""
    keys = take_keys(pair)
    assert all(ours == theirs for ours, theirs in keys.values())
    pair.connect()
    later = take_keys(pair)
    assert all(ours == theirs for ours, theirs in later.values())
    made = [{(e, b) for e, b, _ in side.commits.committed_blocks()} for side in pair.sides]
    assert made[0] == made[1]
    for side in pair.sides:
        assert not side.running.doubtful_blocks()
        assert not side.running.open_blocks()
    for owner, (master, slave) in zip(pair.sides, SAES, strict=True):
        assert owner.keys.counts(master, slave).pending == 0
        assert owner.keys.counts(master, slave).deliverable == 0
    if not made[0]:
        assert keys == later == {}
    return bool(made[0])
