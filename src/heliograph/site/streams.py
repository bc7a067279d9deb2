"""Serves key streams (ETSI GS QKD 004): decisions are made on records, messages go to the other site's key manager."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from heliograph.doors.rests import Rests
from heliograph.errors import HeliographError, StoreUnavailable, TransportClosed
from heliograph.kme import stream_messages as m
from heliograph.kme.etsi004 import Close, GetKey, GetKeyReply, OpenConnect, OpenReply, Reply, Request, Status
from heliograph.kme.one_time import KEYS_FOR_EACH_MESSAGE, OneTimeKeys, read_request
from heliograph.kme.quotas import TooManyRequests
from heliograph.kme.stream_records import Missing, Opening, Stream
from heliograph.kme.streams import AHEAD_MAX, WINDOW, Streams
from heliograph.kme.supply import Supply
from heliograph.transport.one_time_channel import OneTimeClient

__all__ = ["StreamService", "one_time_keys"]

SWEEP_S = 5.0  # our choice

_ROUNDS = 2 + AHEAD_MAX // WINDOW

log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")


def one_time_keys(supply: Supply, local: str, remote: str) -> OneTimeKeys:
    """Take two keys as master for one exchange. Raises KeySupplyError or StoreUnavailable."""
    first, second = supply.draw(local, remote, KEYS_FOR_EACH_MESSAGE)
    return OneTimeKeys(first, second)


class StreamService:
    """The calls of applications and the messages of the other key manager. One thread makes all store calls."""

    def __init__(self, streams: Streams, supply: Supply) -> None:
        self._streams, self._supply = streams, supply
        self._store = ThreadPoolExecutor(1, "streams")
        self._channels: Mapping[str, OneTimeClient] = {}
        self._events: dict[bytes, asyncio.Event] = {}
        self._reserving: dict[bytes, asyncio.Task[None]] = {}
        self._rests = Rests()
        self._turn = asyncio.Lock()  # one reservation at a time: a second would send the same chunks again

    def connect(self, channels: Mapping[str, OneTimeClient]) -> None:
        """Name the ways to the other key managers, by the link whose keys their messages take (``SaePair.link``)."""
        self._channels = channels

    async def draw(self, local: str, remote: str) -> OneTimeKeys:
        """Take the keys of one exchange, for ``OneTimeClient``."""
        return await self._in_store(lambda: one_time_keys(self._supply, local, remote))

    async def close(self) -> None:
        """End what is under way."""
        for task in self._reserving.values():
            task.cancel()
        await asyncio.gather(*self._reserving.values(), return_exceptions=True)
        self._store.shutdown()

    async def sweep(self) -> None:
        """Erase streams whose time is over, now and then."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._in_store(self._streams.expire)
            except HeliographError as why:
                log.warning("expired streams could not be erased", reason=str(why))

    # -- applications ------------------------------------------------------------------------------------------------

    async def call(self, caller: str, request: Request) -> Reply:
        """Answer one call. Raises NotPermitted for an SAE that is not registered here, StoreUnavailable.

        A call beyond the SAE's ``requests_per_s`` gets INSUFFICIENT_KEY, since 004 has no status of its own for it; a
        CLOSE, which has none at all, raises TooManyRequests. Who hurries gets a refusal after a rest.
        """
        reply = await self._answer(caller, request)
        if isinstance(reply, OpenReply | GetKeyReply) and reply.status is Status.INSUFFICIENT_KEY:
            await self._rests.rest(caller)
        return reply

    async def _answer(self, caller: str, request: Request) -> Reply:
        try:
            self._supply.admit(caller)
        except TooManyRequests:
            if isinstance(request, Close):
                raise
            return (OpenReply if isinstance(request, OpenConnect) else GetKeyReply)(Status.INSUFFICIENT_KEY)
        match request:
            case OpenConnect():
                return await self._open(caller, request)
            case GetKey():
                return await self._get_key(caller, request)
            case Close(ksid):
                reply, stream = await self._in_store(lambda: self._streams.close(caller, ksid))
                if stream is not None:
                    await self._tell(stream, m.Closing(ksid))
                return reply

    async def _open(self, caller: str, request: OpenConnect) -> OpenReply:
        decided = await self._in_store(lambda: self._streams.begin_open(caller, request))
        if isinstance(decided, OpenReply):
            return decided
        opening: Opening = decided
        answer = await self._tell(opening.stream, opening.message)
        if answer is None:
            return OpenReply(Status.NO_QKD_CONNECTION)
        reply = await self._in_store(lambda: self._streams.finish_open(opening, answer))
        log.info("stream opened", sae=caller, ksid=str(uuid.UUID(bytes=reply.ksid)), status=reply.status.name)
        if reply.status is Status.PEER_NOT_CONNECTED and opening.wait_ms:
            if not await self._wait(reply.ksid, lambda: self._streams.is_connected(reply.ksid), opening.wait_ms / 1000):
                gone = await self._in_store(lambda: self._streams.give_up_open(reply.ksid))
                if gone is not None:
                    await self._tell(opening.stream, gone)
                    return OpenReply(Status.TIMEOUT)
            reply = OpenReply(Status.SUCCESSFUL, reply.qos, reply.ksid)
        if reply.status is Status.SUCCESSFUL:
            self._reserve_soon(reply.ksid, 0)
        return reply

    async def _get_key(self, caller: str, request: GetKey) -> GetKeyReply:
        found = await self._in_store(lambda: self._streams.get_key(caller, request))
        if isinstance(found, Missing):
            found = await self._get_missing(caller, request, found)
        if found.status is Status.SUCCESSFUL:
            log.info("chunk delivered", sae=caller, ksid=str(uuid.UUID(bytes=request.ksid)), index=request.index)
            self._reserve_soon(request.ksid, request.index + 1)
        return found

    async def _get_missing(self, caller: str, request: GetKey, missing: Missing) -> GetKeyReply:
        stream = missing.stream
        if stream.owner_here:
            reached = await self._reserve(stream.ksid, missing.index)
        else:
            # The owner answers when its reservation, if it has key for one, has arrived here.
            reached = await self._tell(stream, m.Want(stream.ksid, missing.index)) is not None
        found = await self._in_store(lambda: self._streams.get_key(caller, request))
        if isinstance(found, Missing):
            return GetKeyReply(Status.INSUFFICIENT_KEY if reached else Status.NO_QKD_CONNECTION)
        return found

    # -- the other key manager -----------------------------------------------------------------------------------------

    async def answer(self, data: bytes, proved: Callable[[], None] = lambda: None) -> bytes:
        """Answer a message of the other key manager. Raises HeliographError, and then nothing was done.

        ``proved`` is called once its tag was right.
        """
        sealed = read_request(data)
        keys, body = await self._in_store(lambda: self._streams.take(sealed))
        proved()
        message = m.read_message(body)
        reply = await self._in_store(lambda: self._streams.handle(sealed.sender, sealed.receiver, message))
        self._wake(message.ksid)
        if isinstance(message, m.Want) and reply == m.Done(ok=True):
            await self._reserve_quietly(message.ksid, message.index)
        elif isinstance(message, m.Opening):
            self._reserve_soon(message.ksid, 0)
        return keys.seal_reply(m.encode(reply))

    async def _tell(self, stream: Stream, message: m.Message) -> m.StreamReply | None:
        """Return the other key manager's answer, None if it cannot be reached or no key is left to ask it."""
        try:
            channel = self._channels.get(self._supply.authorise(stream.local_sae, stream.remote_sae).link)
            if channel is None:
                raise TransportClosed("no way to the other key manager is configured")
            data = await channel.request(stream.local_sae, stream.remote_sae, m.encode(message))
            return m.read_stream_reply(data)
        except StoreUnavailable:
            raise
        except HeliographError as why:
            log.warning("other key manager not reached", reason=str(why), message=type(message).__name__)
            return None

    def _reserve_soon(self, ksid: bytes, index: int) -> None:
        if ksid not in self._reserving:
            task = asyncio.create_task(self._reserve_quietly(ksid, index))
            self._reserving[ksid] = task
            task.add_done_callback(lambda _: self._reserving.pop(ksid, None))

    async def _reserve_quietly(self, ksid: bytes, index: int) -> None:
        try:
            await self._reserve(ksid, index)
        except HeliographError as why:
            log.warning("no chunk reserved", reason=str(why))

    async def _reserve(self, ksid: bytes, index: int) -> bool:
        """Reserve up to ``index`` and a window beyond; False if the other key manager could not be reached."""
        async with self._turn:
            for _ in range(_ROUNDS):  # what is not acknowledged yet goes first
                planned = await self._in_store(lambda: self._streams.plan_reservation(ksid, index))
                stream = await self._in_store(lambda: self._streams.find(ksid))
                if planned is None or stream is None:
                    return True
                answer = await self._tell(stream, planned)
                if answer is None:
                    return False
                agreed = functools.partial(self._streams.reservation_done, planned, answer)
                if not await self._in_store(agreed):
                    return True
                self._wake(ksid)
                if index <= planned.chunks[-1][0]:
                    return True
        return True

    # -- waiting ---------------------------------------------------------------------------------------------------

    async def _wait(self, ksid: bytes, ready: Callable[[], bool], seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    # The event first, then the look: what happens in between wakes it.
                    event = self._events.setdefault(ksid, asyncio.Event())
                    if await self._in_store(ready):
                        return True
                    await event.wait()
        except TimeoutError:
            return await self._in_store(ready)

    def _wake(self, ksid: bytes) -> None:
        if event := self._events.pop(ksid, None):
            event.set()

    async def _in_store(self, call: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._store, call)
