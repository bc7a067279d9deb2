"""A recorder on the line between two sites: relays TCP byte by byte and keeps everything it saw."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import BinaryIO

from heliograph.errors import ConfigurationError

__all__ = ["Wiretap"]

_CHUNK = 1 << 18


class Wiretap:
    """Listens where one site dials, dials where the other listens; both directions go to files."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.files = (directory / f"{name}.dialler.bin", directory / f"{name}.listener.bin")
        self.bytes_seen = 0
        self._relays: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._sinks: tuple[BinaryIO, ...] = ()

    async def start(self, listen: tuple[str, int], target: tuple[str, int]) -> None:
        """Begin. Raises ConfigurationError if the address is in use."""
        self._sinks = tuple(path.open("ab") for path in self.files)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._relays.add(task)
            try:
                await self._relay(reader, writer, target)
            except asyncio.CancelledError:
                return  # close() ends it; whoever accepted the connection has nothing to tell
            finally:
                writer.close()
                self._relays.discard(task)

        try:
            self._server = await asyncio.start_server(relay, *listen)
        except OSError as error:
            await self.close()
            raise ConfigurationError(f"recorder {self.name}: cannot listen on {listen}: {error.strerror}") from None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*target)
        except OSError:
            return  # nobody there: the dialler is told by the end of its connection
        try:
            await asyncio.gather(
                self._copy(reader, far_writer, self._sinks[0]), self._copy(far_reader, writer, self._sinks[1])
            )
        finally:
            far_writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sink: BinaryIO) -> None:
        try:
            while data := await reader.read(_CHUNK):
                sink.write(data)
                self.bytes_seen += len(data)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.close()  # one end went away; the other is told

    async def close(self) -> None:
        """Stop listening, cut every connection and put the recording on disk."""
        if self._server is not None:
            self._server.close()
        relays = tuple(self._relays)
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
        for sink in self._sinks:
            sink.close()
