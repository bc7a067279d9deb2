"""Several blocks of one recording over one connection: each takes its own frames, and no peer can make it otherwise."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.errors import QBERTooHigh, RemoteProtocolError, TransportClosed
from heliograph.lab import block_runs
from heliograph.lab.block_runs import BlockRuns
from heliograph.postprocessing.secrecy.recorded import Requirements
from heliograph.protocol import distillation as d
from heliograph.protocol.frames import Direction, parse_frame
from heliograph.site.workers import Workers
from heliograph.testing.randomness import SeededRandom
from heliograph.types import BlockId

LOOSE = Requirements(1e-6, 1e-6)
BITS = 4000


class Wire:
    """One end of a connection in memory; ``tamper`` sees what this end sends."""

    def __init__(self, tamper=lambda frame: [frame]):
        self.tamper, self.inbox, self.peer, self.open = tamper, asyncio.Queue(), None, True

    async def send(self, frame):
        if not self.open:
            raise TransportClosed("closed")
        for one in self.tamper(frame):
            self.peer.inbox.put_nowait(one)

    async def receive(self):
        frame = await self.inbox.get()
        if frame is None:
            raise TransportClosed("the connection to the peer ended")
        return frame

    async def close(self):
        self.open = False
        self.peer.inbox.put_nowait(None)


def recorded(blocks, bad=()):
    rng = np.random.default_rng(7)
    sides = [], []
    for block in range(blocks):
        a = rng.integers(0, 2, BITS, dtype=np.uint8)
        wrong = (rng.random(BITS) < (0.2 if block in bad else 0.01)).astype(np.uint8)
        for side, bits in zip(sides, (a, a ^ wrong), strict=True):
            side.append(BitString.from_array(bits))
    return sides


def two_sides(blocks, in_flight=3, *, bad=(), tamper_a=None, tamper_b=None):
    """Run both sides; return what came of each, or what it raised, and the order in which blocks began."""

    async def both():
        a, b = Wire(*([tamper_a] if tamper_a else [])), Wire(*([tamper_b] if tamper_b else []))
        a.peer, b.peer = b, a
        workers, begun = Workers(2), ([], [])

        def side(name, number, wire, bits):
            def begin(block):
                begun[number].append(block)
                return d.Run(bits[block], LOOSE, block=BlockId(block))

            runs = BlockRuns(name, wire, workers, SeededRandom(number), begin)

            async def whole():
                try:
                    return await runs.run(blocks, in_flight)
                finally:
                    await wire.close()

            return whole()

        bits_a, bits_b = recorded(blocks, bad)
        try:
            async with asyncio.timeout(60):
                sides = side("reference", 0, a, bits_a), side("correction", 1, b, bits_b)
                return *(await asyncio.gather(*sides, return_exceptions=True)), begun
        finally:
            workers.close()

    return asyncio.run(both())


@pytest.mark.parametrize("in_flight", [1, 3, 20])
def test_each_block_gives_the_same_key_on_both_sides_however_many_are_in_flight(in_flight):
    alice, bob, begun = two_sides(8, in_flight)
    assert [one.outcome for one in alice] == [one.outcome for one in bob]
    keys = [one.outcome.key.bits.to_bytes() for one in alice]
    assert len(set(keys)) == 8
    assert begun[1] == list(range(8))
    assert all(one.rounds == other.rounds > 1 for one, other in zip(alice, bob, strict=True))


def test_a_block_without_a_key_says_why_on_both_sides_and_costs_no_other():
    alice, bob, _ = two_sides(5, bad=(1, 4))
    for number, (one, other) in enumerate(zip(alice, bob, strict=True)):
        assert (one.outcome is None) == (other.outcome is None) == (number in (1, 4))
    assert isinstance(bob[1].discarded, QBERTooHigh)
    assert isinstance(alice[1].discarded, d.PeerGaveUp)


def forger(change):
    """Let the first frame pass, and after it send what ``change`` makes of it too."""
    done = []

    def tamper(frame):
        extra = [] if done else [change(parse_frame(frame)).wire()]
        done.append(True)
        return [frame, *extra]

    return tamper


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: replace(frame, block=99),  # beyond the recording
        lambda frame: replace(frame, block=7),  # long before its turn
        lambda frame: frame,  # twice
        lambda frame: replace(frame, block=1, sequence=5),
        lambda frame: replace(frame, direction=Direction(1 - frame.direction)),
    ],
)
@pytest.mark.parametrize("side", ["tamper_a", "tamper_b"])
def test_frames_that_are_not_due_end_the_run_on_both_sides(change, side):
    alice, bob, _ = two_sides(9, 2, **{side: forger(change)})
    kinds = {type(alice), type(bob)}
    assert RemoteProtocolError in kinds
    assert kinds <= {RemoteProtocolError, TransportClosed}


def test_frames_of_one_block_that_nobody_waits_for_do_not_pile_up():
    alice, _, _ = two_sides(3, 2, tamper_b=lambda frame: [frame] * 10)
    assert isinstance(alice, RemoteProtocolError)


def test_large_frames_before_their_turn_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(block_runs, "_BYTES_WAITING", 50_000)
    large = lambda frame: [frame] + [replace(parse_frame(frame), block=b, body=bytes(20_000)).wire() for b in (1, 2, 3)]  # noqa: E731
    alice, _, _ = two_sides(9, 4, tamper_b=large)
    assert isinstance(alice, RemoteProtocolError)


def test_junk_in_place_of_a_frame_ends_the_run():
    alice, bob, _ = two_sides(3, 2, tamper_a=lambda frame: [frame[:-1]])
    assert isinstance(bob, RemoteProtocolError)
    assert isinstance(alice, (RemoteProtocolError, TransportClosed))


def test_a_connection_that_ends_behind_the_last_frame_loses_nothing():
    """The reference side is done, and gone, when it has sent its last word."""
    for _ in range(5):
        alice, bob, _ = two_sides(1, 1)
        assert alice[0].outcome == bob[0].outcome


def test_a_connection_that_ends_early_ends_the_run():
    left = [6]

    def tamper(frame):
        left[0] -= 1
        if left[0] < 0:
            raise TransportClosed("cut by the test")
        return [frame]

    alice, bob, _ = two_sides(4, 2, tamper_b=tamper)
    assert isinstance(alice, TransportClosed)
    assert isinstance(bob, TransportClosed)


def test_a_bug_in_a_job_is_no_block_without_a_key():
    """What nobody foresaw is not taken for a discarded block; both sides end."""

    async def broken():
        wire = Wire()
        wire.peer = wire

        def begin(_):
            raise ZeroDivisionError

        runs = BlockRuns("correction", wire, Workers(1), SeededRandom(1), begin)
        await runs.run(2, 2)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(broken())
