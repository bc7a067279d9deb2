"""No reveal before a checked closure: not one basis bit on the wire, and the block is destroyed (security.md 1)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tampering import make, message_name, take_keys

from heliograph.authentication.pads import PadRole
from heliograph.protocol import actions as a
from heliograph.protocol import messages as m
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.frames import Direction, Frame, parse_frame


def reveals(pair):
    return [f for _, f in pair.frames if message_name(f) == "BasisReveal"]


def pads_left(side, block):
    with side.database.reading() as cursor:
        rows = cursor.execute(
            "SELECT role FROM link_pads WHERE block = ? AND sealed IS NOT NULL", (int(block),)
        ).fetchall()
    return {PadRole(role) for (role,) in rows}


def assert_destroyed(pair, block):
    """Assert that nothing was revealed, no key was made, and no pad of the block is left on either side."""
    assert reveals(pair) == []
    pair.time_out()
    assert reveals(pair) == []
    for side in pair.sides:
        assert pads_left(side, block) == set()
        assert block not in side.finished()
        assert side.records.totals().blocks_discarded == 1
    assert take_keys(pair) == {}
    # The next block is untouched by it.
    pair.wire = lambda _, frame: (frame,)
    after = pair.run_block()
    assert pair.tx.finished() == pair.rx.finished() == [after]


def altered(frame, **changes):
    """Return the closure with fields changed, its tag left as it was."""
    return replace(frame, body=encode(m_replace(decode(frame.body), changes))).wire()


def m_replace(message, changes):
    fields = {name: getattr(message, name) for name in message.__struct_fields__} | changes
    return type(message)(**fields)


def one_slot_moved(closure):
    gaps = np.frombuffer(closure.slots, f"<u{closure.width}").copy()
    gaps[3] += 1
    gaps[4] -= 1
    return {"slots": gaps.tobytes()}


def one_detection_added(closure):
    gaps = np.frombuffer(closure.slots, f"<u{closure.width}")
    at = int(np.flatnonzero(gaps > 1)[0])
    split = np.concatenate([gaps[:at], [1, gaps[at] - 1], gaps[at + 1 :]]).astype(gaps.dtype)
    bases = closure.bases + (b"\0" if closure.detections % 8 == 0 else b"")
    return {"slots": split.tobytes(), "detections": closure.detections + 1, "bases": bases}


ALTERATIONS = {
    "one slot moved": one_slot_moved,
    "one basis turned": lambda c: {"bases": bytes([c.bases[0] ^ 0x80]) + c.bases[1:]},
    "one detection added": one_detection_added,
    "one double click more": lambda c: {"double_clicks": c.double_clicks + 1},
    "nothing detected": lambda _: {"detections": 0, "slots": b"", "bases": b""},
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_an_altered_closure_yields_no_reveal(tmp_path, alteration):
    def eve(_, frame):
        if message_name(frame) != "QuantumPhaseClosed":
            return (frame,)
        parsed = parse_frame(frame)
        return (altered(parsed, **ALTERATIONS[alteration](decode(parsed.body))),)

    pair = make(tmp_path / "pair", prefilter=False, wire=eve)
    block = pair.run_block()
    assert pair.tx.discards() == ["AuthenticationFailed"]
    assert_destroyed(pair, block)


@pytest.mark.parametrize("byte", range(16))
def test_a_closure_with_another_tag_yields_no_reveal(tmp_path, byte):
    def eve(_, frame):
        if message_name(frame) != "QuantumPhaseClosed":
            return (frame,)
        at = len(frame) - 16 + byte
        return (frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :],)

    pair = make(tmp_path / "pair", prefilter=False, wire=eve)
    block = pair.run_block()
    assert pair.tx.discards() == ["AuthenticationFailed"]
    assert_destroyed(pair, block)


def forged_closure(block):
    """Eve announces that detection is over while the pulses are still on their way."""
    closure = m.QuantumPhaseClosed(2, 1, b"\x01\x01", b"\x00", 0, 0)
    return Frame(Direction.TO_TRANSMITTER, 1, block, 1, 1, encode(closure), tagged=True, tag=bytes(16)).wire()


def test_an_early_forged_closure_yields_no_reveal(tmp_path):
    pair = make(tmp_path / "pair", prefilter=False)
    block = pair.begin_block()
    while type(pair.tx.running.blocks[block]).__name__ != "Emitting":
        pair.advance()
    # Nothing has left or clicked for the machine yet: the shell's word is still in the queue.
    emitted = [item for item in pair._todo if isinstance(item[-1], a.Emitted)]
    assert emitted
    pair._todo.appendleft((pair.tx, forged_closure(block)))
    pair.settle()
    assert pair.tx.discards() == ["AuthenticationFailed"]
    assert_destroyed(pair, block)


def test_a_forged_closure_before_the_light_is_kept_and_then_refused(tmp_path):
    pair = make(tmp_path / "pair", prefilter=False)
    block = pair.begin_block()
    while type(pair.tx.running.blocks[block]).__name__ != "Emitting":
        pair.advance()
    session, actions = pair.tx.running.receive(forged_closure(block))
    assert actions == []  # no tag is checked, no basis revealed, while the module still sends
    assert session.blocks[block].early is not None


def test_the_closure_of_another_block_yields_no_reveal(tmp_path):
    old = []

    def eve(_, frame):
        if message_name(frame) != "QuantumPhaseClosed":
            return (frame,)
        old.append(parse_frame(frame))
        return (frame,) if len(old) == 1 else (replace(old[0], block=9).wire(),)

    pair = make(tmp_path / "pair", prefilter=False, wire=eve)
    first = pair.run_block()
    keys = take_keys(pair)
    block = pair.run_block()
    assert len(reveals(pair)) == 1  # that of the first, honest block
    pair.time_out()
    assert pair.tx.discards() == ["AuthenticationFailed"]
    assert pair.tx.finished() == pair.rx.finished() == [first]
    assert all(pads_left(side, block) == set() for side in pair.sides)
    assert keys
    assert take_keys(pair) == {}


def test_junk_instead_of_the_closure_yields_no_reveal(tmp_path):
    """With the pre-filter on, Eve's frame is dropped unseen and the block ends by its time limit."""
    pair = make(tmp_path / "pair")
    bare = make(tmp_path / "bare", prefilter=False)
    bare.run_block()
    sealed = {i: d for i, (d, f) in enumerate(bare.frames) if message_name(f) == "QuantumPhaseClosed"}
    (index,) = sealed
    seen = []

    def eve(_, frame):
        seen.append(frame)
        return (forged_closure(1),) if len(seen) - 1 == index else (frame,)

    pair.wire = eve
    pair.run_block()
    assert len(pair.frames) == index + 1  # nothing came after it: no reveal
    assert pair.tx.refused == ["junk"]
    assert pair.tx.attempts == 0
    pair.time_out()
    assert [s.finished() for s in pair.sides] == [[], []]
    assert pads_left(pair.tx, 1) == set()
