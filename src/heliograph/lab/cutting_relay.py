"""A relay on this host between two parts, which can be cut: in one direction or both, silently or for all to see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["CuttingRelay", "from_port", "from_socket"]

_PIECE: Final = 1 << 16
_HOST: Final = "127.0.0.1"
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def from_port(port: int | Callable[[], int]) -> Callable[[], Awaitable[_Streams]]:
    """Return what connects to a TCP port of this host; ``port`` is asked each time if it is not known yet."""
    return lambda: asyncio.open_connection(_HOST, port() if callable(port) else port)


def from_socket(path: Path) -> Callable[[], Awaitable[_Streams]]:
    """Return what connects to a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)


class CuttingRelay:
    """Hands on the bytes of each connection. ``connect``: reaches the part behind it.

    A silent cut keeps what is sent, as TCP does while packets are lost, and hands it on when healed; a hard cut ends
    every connection and refuses new ones. A cut that loses connections is a silent one after which those that there
    were stay silent and open for good, as behind a firewall that has forgotten them; new ones pass.
    """

    def __init__(self, connect: Callable[[], Awaitable[_Streams]]) -> None:
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._open = (asyncio.Event(), asyncio.Event())  # towards the part behind, and back
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.heal()

    async def listen(self, port: int = 0) -> int:
        """Listen on a TCP port of this host, and return it."""
        self._server = await asyncio.start_server(self._accept, _HOST, port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket that every user may connect to."""
        self._server = await asyncio.start_unix_server(self._accept, path)
        path.chmod(0o777)  # noqa: ASYNC240  - one call, which waits for nothing

    def cut(self, *, hard: bool, onward: bool = True, back: bool = True, lost: bool = False) -> None:
        """Cut: hard in both directions, or silently in those that are named. ``lost``: see the class."""
        if hard:
            self._refusing = True
            self._end_all()
            return
        gates = [*self._open]
        if lost:
            self._open = asyncio.Event(), asyncio.Event()  # of the connections to come: healed without the others
            gates += self._open
            self.heal()
        for at, gate in enumerate(gates):
            if (onward, back)[at % 2]:
                gate.clear()

    def heal(self) -> None:
        """Hand on again, first what waited."""
        self._refusing = False
        for gate in self._open:
            gate.set()

    async def close(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        self._end_all()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end_all(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        onward, back = self._open
        try:
            await onward.wait()
            behind = await self._connect()
            self._writers.add(behind[1])
            await asyncio.gather(self._pump(reader, behind[1], onward), self._pump(behind[0], writer, back))
            self._writers.discard(behind[1])
        except (OSError, asyncio.CancelledError):
            pass  # the part behind is away, or this relay ends
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with suppress(OSError):
            while piece := await source.read(_PIECE):
                await gate.wait()
                sink.write(piece)
                await sink.drain()
        with suppress(OSError):  # the other end is told once all that waited has gone
            await gate.wait()
            sink.close()
