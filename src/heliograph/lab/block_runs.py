"""Several blocks of one recording over one connection: a machine for each, some of them in flight at once.

While one block waits for the peer, the jobs of others keep the processors busy. Frames name their block, and each
block takes its own strictly in turn. A block that ends without a key costs its own bits; a peer that breaks the
protocol, or a connection that ends, costs the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from heliograph.errors import BlockDiscarded, HeliographError, RemoteProtocolError, TransportClosed
from heliograph.ports import RandomSource, Transport
from heliograph.protocol import distillation as d
from heliograph.protocol import distillation_correction, distillation_one_way, distillation_reference
from heliograph.protocol.actions import Compute, Computed, Drawn, Received, Send, Start
from heliograph.protocol.frames import Frame, parse_frame
from heliograph.site.workers import Workers

__all__ = ["BlockRuns", "Driven", "Side"]

Side = Literal["reference", "correction"]

_MACHINES: Final = {"reference": distillation_reference, "correction": distillation_correction}
_IN_ROUNDS: Final = (
    distillation_reference.Answering,
    distillation_one_way.AwaitingRequest,
    distillation_one_way.Sending,
    distillation_correction.AwaitingParities,
    distillation_one_way.AwaitingSyndrome,
)
# Our choice: the sides take turns, so a peer that keeps to the protocol never has more frames of a block under way.
_FRAMES_WAITING: Final = 4
_BYTES_WAITING: Final = 1 << 27  # of all blocks


@dataclass(frozen=True, slots=True)
class Driven:
    """What came of one block: an outcome, or why there is none.

    ``rounds`` of parities or of syndromes; ``began``, ``ended``: from the passes' seed to the last correction, in
    seconds on the monotonic clock of the correcting side, which measures; the other reports 0.
    """

    outcome: d.Outcome | None
    rounds: int
    began: float
    ended: float
    discarded: BlockDiscarded | None = None


class BlockRuns:
    """One side's blocks. ``begin(i)`` returns what this side holds of block i, read only when it begins."""

    def __init__(
        self,
        side: Side,
        transport: Transport,
        workers: Workers,
        randomness: RandomSource,
        begin: Callable[[int], d.Run],
    ) -> None:
        self._machine = _MACHINES[side]
        self._is_reference = side == "reference"
        self._transport = transport
        self._workers = workers
        self._randomness = randomness
        self._begin = begin
        self._boxes: dict[int, asyncio.Queue[Frame | HeliographError]] = {}
        self._waiting_bytes = 0
        self._over: HeliographError | None = None  # what ended the connection
        self._ended: set[int] = set()

    async def run(self, blocks: int, in_flight: int) -> list[Driven]:
        """Run blocks 0 to ``blocks`` - 1, begun in that order, ``in_flight`` at once.

        Raises HeliographError where the run ends without all of them, after telling the peer why.
        """
        results: dict[int, Driven] = {}
        numbers = iter(range(blocks))

        async def lane() -> None:
            for block in numbers:
                results[block] = await self._block(block)
                self._ended.add(block)
                left = self._boxes.pop(block, None)  # of a discarded block a frame may be left
                while left is not None and not left.empty():
                    frame = left.get_nowait()
                    self._waiting_bytes -= len(frame.body) if isinstance(frame, Frame) else 0

        reader = asyncio.create_task(self._read(blocks, 2 * in_flight))
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(in_flight, blocks)):
                    lanes.create_task(lane())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the first lane's; the others were cancelled for it
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        return [results[block] for block in range(blocks)]

    async def _read(self, blocks: int, ahead: int) -> None:
        """Put each frame into its block's box; what ends the connection goes into all of them, behind the frames."""
        try:
            while True:
                frame = parse_frame(await self._transport.receive())
                block = frame.block
                # A block that was discarded here may have had a frame under way.
                if block in self._ended:
                    continue
                if block >= min(blocks, len(self._ended) + ahead) or self._box(block).qsize() >= _FRAMES_WAITING:
                    raise RemoteProtocolError(f"a frame of block {block}, for which none is due")
                self._waiting_bytes += len(frame.body)
                if self._waiting_bytes > _BYTES_WAITING:
                    raise RemoteProtocolError(f"frames of {self._waiting_bytes} bytes came before their turn")
                self._box(block).put_nowait(frame)
        except HeliographError as why:
            self._over = why
            for box in self._boxes.values():
                box.put_nowait(why)

    def _box(self, block: int) -> asyncio.Queue[Frame | HeliographError]:
        if block not in self._boxes:
            self._boxes[block] = asyncio.Queue()
            if self._over is not None:
                self._boxes[block].put_nowait(self._over)
        return self._boxes[block]

    async def _next(self, block: int) -> Frame:
        """Return the block's next frame. Raises what ended the connection."""
        found = await self._box(block).get()
        if isinstance(found, HeliographError):
            raise found
        self._waiting_bytes -= len(found.body)
        return found

    async def _block(self, block: int) -> Driven:
        """Run one machine to its end."""
        run = await self._workers.run(Compute("read", self._begin, (block,)))
        assert isinstance(run, d.Run)
        state = self._machine.begin(run)
        rounds, began, ended = 0, 0.0, 0.0
        event: d.Event | None = Start()
        try:
            while not isinstance(state, d.Finished):
                if event is None:
                    event = Received(await self._next(block))
                    rounds += isinstance(state, _IN_ROUNDS)
                state, actions = self._machine.step(state, event)
                event = None
                for action in actions:
                    event = await self._do(action) or event
                if isinstance(state, distillation_correction.AwaitingSample):
                    began = time.monotonic()
                elif isinstance(state, distillation_correction.AwaitingChallenge):
                    ended = time.monotonic()
        except d.PeerGaveUp as why:
            return Driven(None, rounds, began, ended, why)
        except BlockDiscarded as why:
            await self._tell(state, why)
            return Driven(None, rounds, began, ended, why)
        except TransportClosed:
            raise
        except HeliographError as why:
            await self._tell(state, why)
            raise
        # The reference side gets one message more in that state: the end of the rounds.
        return Driven(state.outcome, rounds - self._is_reference, began, ended)

    async def _do(self, action: d.Action) -> d.Event | None:
        if isinstance(action, Send):
            await self._transport.send(action.frame.wire())
            return None
        if isinstance(action, Compute):
            return Computed(action.job, await self._workers.run(action))
        return Drawn(self._randomness.draw(action.size))

    async def _tell(self, state: d.State, why: HeliographError) -> None:
        with suppress(TransportClosed):
            await self._transport.send(d.abandonment(state, str(why)).wire())
