"""Carries out a session's actions, strictly in order, for as long as one connection lasts.

The machines decide, this shell does: it talks to the transport, the store, the modules and the thread pools, and hands
every result back as an event. ``Tag``, ``CheckTag`` and ``Persist`` are durable before the next action starts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.pads import PadAddress
from heliograph.authentication.prefilter import FrameFilter
from heliograph.errors import (
    AuthenticationFailed,
    HeliographError,
    LocalProtocolError,
    PadsExhausted,
    RemoteProtocolError,
    TransportClosed,
)
from heliograph.ports import Clock, RandomSource, Receiver, Transmitter, Transport
from heliograph.protocol import actions as a
from heliograph.protocol.frames import Frame
from heliograph.protocol.session import BlockAction, Session, SessionStep
from heliograph.site.workers import Workers
from heliograph.storage.commit_records import CommitRecords
from heliograph.storage.link_records import LinkRecords
from heliograph.types import BlockId

__all__ = ["Connection", "Engine", "EngineParts"]

_T = TypeVar("_T")
# Our choices.
_JUNK_S = 5.0  # our choice: how long only junk may come before the connection is given up
_INBOX = 1024  # inputs that wait for the session before the reader stops reading
_SURVIVOR_S = 5.0  # what a peer takes to repeat its acceptance on a new connection; if it has none, it never will
log = structlog.get_logger("heliograph.link")


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What the engine works with. ``compute``: threads for the jobs; ``store``: the one thread that syncs."""

    records: LinkRecords
    commits: CommitRecords
    authenticator: Authenticator
    randomness: RandomSource
    clock: Clock
    module: Transmitter | Receiver
    compute: Workers
    store: ThreadPoolExecutor
    block_seconds: float
    log: Any = log  # with several links it names this one


@dataclass(slots=True)
class Connection:
    """One authenticated connection."""

    transport: Transport
    outgoing: FrameFilter
    incoming: FrameFilter


@dataclass(frozen=True, slots=True)
class _Input:
    """Something for the session: a step to take."""

    take: Callable[[Session], SessionStep]
    label: str


class Engine:
    """Runs one link's session. The session survives connections; it is made anew for each epoch."""

    def __init__(self, session: Session, parts: EngineParts, observe: Callable[[BlockAction], None]) -> None:
        self.session = session
        self.junk_frames = 0
        self.refused_frames = 0
        self._parts = parts
        self._observe = observe
        self._connection: Connection | None = None
        self._inbox: asyncio.Queue[_Input] = asyncio.Queue(_INBOX)
        self._jobs: set[asyncio.Task[None]] = set()
        self._began: dict[BlockId, float] = {}
        self._junk_since: float | None = None
        self._out_of_step = False
        self._survivors: dict[BlockId, float] = {}

    async def run(self, connection: Connection, next_block: Callable[[Session], SessionStep | None]) -> None:
        """Serve one connection until it ends. ``next_block`` starts a block when it is time for one.

        If this raises or is cancelled, the machines may be ahead of the store: make a new engine from the store.
        """
        self._connection = connection
        self._junk_since, self._out_of_step = None, False
        now = self._parts.clock.now()
        self._survivors = dict.fromkeys(self.session.open_blocks(), now)
        reader = asyncio.create_task(self._read(connection))
        ticker = asyncio.create_task(self._tick())
        try:
            await self._carry_out(self.session.resumptions())
            while True:
                await self._begin_blocks(next_block)
                item = await self._inbox.get()
                await self._take(item)
        except TransportClosed:
            self._parts.log.info("connection ended", link=self.session.registration.link)
        finally:
            self._connection = None
            for task in (reader, ticker):
                task.cancel()
            await asyncio.gather(reader, ticker, return_exceptions=True)
        await self._take(_Input(lambda session: session.disconnected(), "disconnected"))

    async def close(self) -> None:
        """Stop what still computes."""
        for job in tuple(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _begin_blocks(self, next_block: Callable[[Session], SessionStep | None]) -> None:
        while (step := await self._in_store(lambda: next_block(self.session))) is not None:
            self.session, actions = step
            await self._carry_out(actions)

    async def _read(self, connection: Connection) -> None:
        try:
            while True:
                frame = connection.incoming.open(await connection.transport.receive())
                if frame is None:
                    self.junk_frames += 1  # silent: no attempt, no pad, no parse
                    self._junk_since = self._junk_since or self._parts.clock.now()
                    continue
                self._junk_since = None
                await self._inbox.put(_Input(lambda session, f=frame: session.receive(f), "frame"))  # type: ignore[misc]
        except (TransportClosed, RemoteProtocolError) as why:
            await self._inbox.put(_Input(_raiser(TransportClosed(str(why))), "end"))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            await self._inbox.put(_Input(self._expire, "tick"))

    def _expire(self, session: Session) -> SessionStep:
        """Give up blocks over their time: availability only, the clock decides no more than that.

        A stream that lost or gained a byte never gets in step again by itself: junk and no good frame after it, or a
        block that went nowhere, ends the connection, and the next one begins with fresh counters.
        """
        now = self._parts.clock.now()
        if self._out_of_step or (self._junk_since is not None and now - self._junk_since > _JUNK_S):
            raise TransportClosed("the connection is out of step")
        open_ = set(session.open_blocks())
        self._began = {block: self._began.get(block, now) for block in open_}
        late = [block for block, began in self._began.items() if now - began > self._parts.block_seconds]
        self._out_of_step = bool(late)
        late += [block for block, began in self._survivors.items() if block in open_ and now - began > _SURVIVOR_S]
        why = a.Failed("TimedOut", f"the block took longer than {self._parts.block_seconds:g} s, or lost its peer")
        return session.give_up(late, why)

    async def _take(self, item: _Input) -> None:
        try:
            self.session, actions = item.take(self.session)
        except RemoteProtocolError as why:
            self.refused_frames += 1
            self._parts.log.warning("message refused", reason=str(why))
            return
        except LocalProtocolError as why:
            self._parts.log.error("internal order violated", reason=str(why), input=item.label)  # noqa: TRY400  - one line
            return
        await self._carry_out(actions)

    async def _carry_out(self, actions: Sequence[BlockAction]) -> None:
        """Do the actions, then those that follow from their answers, until only outside events are awaited."""
        waiting = deque([list(actions)])
        while waiting:
            events: deque[tuple[BlockId, a.Event]] = deque()
            for item in waiting.popleft():
                event = await self._do(item.block, item.action)
                self._observe(item)
                if event is not None:
                    events.append((item.block, event))
            for block, event in events:
                try:
                    self.session, more = self.session.feed(block, event)
                except (LocalProtocolError, RemoteProtocolError) as why:
                    self._parts.log.error("block machine refused its own shell", block=block, reason=str(why))  # noqa: TRY400
                    continue
                waiting.append(more)

    async def _do(self, block: BlockId, action: a.Action) -> a.Event | None:
        parts, epoch = self._parts, self.session.epoch
        match action:
            case a.Send(frame):
                await self._send(frame)
            case a.Tag(role, covered):
                address = PadAddress(epoch, block, role)
                try:
                    return a.Tagged(role, await self._in_store(lambda: parts.authenticator.tag(address, covered)))
                except PadsExhausted as why:
                    return a.Failed("PadsExhausted", str(why))
            case a.CheckTag(role, covered, tag):
                address = PadAddress(epoch, block, role)
                try:
                    await self._in_store(lambda: parts.authenticator.check(address, covered, tag))
                except (AuthenticationFailed, PadsExhausted) as why:
                    self._parts.log.warning("tag refused", block=block, role=role.name.lower(), reason=str(why))
                    return a.TagRefused(role)
                return a.TagAccepted(role)
            case a.Draw(size):
                return a.Drawn(parts.randomness.draw(size))
            case a.Persist(record):
                await self._in_store(lambda: parts.commits.persist(record))
            case a.Compute():
                self._start(block, self._compute(action))
            case a.Emit(parameters) | a.Collect(parameters):
                self._start(block, self._use_module(block, action, parameters.light))
            case a.Discard(reason, cause):
                await self._in_store(lambda: parts.records.discard(block))
                self._parts.log.warning("block discarded", block=block, cause=cause, reason=reason)
            case a.Finish():
                self._parts.log.info("block finished", block=block)
        return None

    async def _send(self, frame: Frame) -> None:
        """Send, or leave it: what had to be durable is, and is resent on the next connection."""
        if self._connection is None:
            return
        try:
            await self._connection.transport.send(self._connection.outgoing.seal(frame.wire()))
        except TransportClosed:
            self._connection = None  # the reader finds the end too and ends this run

    async def _compute(self, job: a.Compute) -> a.Event:
        try:
            result = await self._parts.compute.run(job)
        except HeliographError as why:
            return a.Failed(type(why).__name__, str(why))
        except Exception as why:  # noqa: BLE001  - a bug costs its block, not the link
            return _bug(self._parts.log, job.job, why)
        return a.Computed(job.job, result)

    async def _use_module(self, block: BlockId, action: a.Action, light: object) -> a.Event:
        module = self._parts.module
        try:
            if isinstance(action, a.Emit):
                return a.Emitted(await module.emit(block, light))  # type: ignore[union-attr,arg-type]
            return a.Clicked(await module.collect(block, light))  # type: ignore[union-attr,arg-type]
        except HeliographError as why:
            return a.Failed("ModuleFailed", f"QKD module: {why}")
        except Exception as why:  # noqa: BLE001  - the module is somebody else's program
            return _bug(self._parts.log, "module", why)

    def _start(self, block: BlockId, work: Coroutine[object, object, a.Event]) -> None:
        async def finish() -> None:
            event = await work
            await self._inbox.put(_Input(lambda session: session.feed(block, event), "event"))

        task = asyncio.create_task(finish())
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _in_store(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._parts.store, call)


def _bug(log: Any, where: str, why: Exception) -> a.Failed:  # noqa: ANN401  - structlog's
    """Name the kind of an error that nobody foresaw; its text stays out of the log, it might quote key material."""
    log.error("internal error", where=where, kind=type(why).__name__)
    return a.Failed("InternalError", f"{where}: {type(why).__name__}")


def _raiser(error: Exception) -> Callable[[Session], SessionStep]:
    def take(_: Session) -> SessionStep:
        raise error

    return take
