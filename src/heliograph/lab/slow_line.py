"""A line on this host that delivers late: what a distance costs a protocol that waits for answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress

__all__ = ["SlowLine"]

_PIECE = 1 << 18
_HOST = "127.0.0.1"


class SlowLine:
    """Hands on both directions of each connection ``delay_s`` seconds late, in order, at any rate.

    It stands for propagation only: nothing is lost and nothing is narrow.
    """

    def __init__(self, target_port: int, delay_s: float) -> None:
        self._target_port = target_port
        self._delay_s = delay_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Listen on a free port of this host, and return it."""
        self._server = await asyncio.start_server(self._accept, _HOST, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Cut what is connected."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with suppress(OSError):  # it was gone already
                await writer.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._writers.append(writer)
            onward = await asyncio.open_connection(_HOST, self._target_port)
        except OSError:
            writer.close()
            return
        self._writers.append(onward[1])
        for source, sink in ((reader, onward[1]), (onward[0], writer)):
            pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
            for work in (self._take(source, pieces), self._hand_on(pieces, sink)):
                task = asyncio.create_task(work)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _take(self, source: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        piece = b"begin"
        while piece:
            try:
                piece = await source.read(_PIECE)
            except OSError:
                piece = b""  # a broken connection ends like a closed one
            pieces.put_nowait((loop.time() + self._delay_s, piece))

    async def _hand_on(self, pieces: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while True:
                due, piece = await pieces.get()
                await asyncio.sleep(due - loop.time())
                if not piece:
                    break
                sink.write(piece)
                await sink.drain()
        sink.close()
