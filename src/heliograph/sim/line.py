"""A module's line to the fibre: orders out, reports back, paired by block id."""

from __future__ import annotations

import asyncio
import contextlib

from heliograph.errors import HeliographError, LocalProtocolError, RemoteProtocolError, TransportClosed
from heliograph.protocol.module_link import (
    HEADER_BYTES,
    REPORT_BYTES_MAX,
    ModuleError,
    Order,
    Report,
    decode_report,
    encode_frame,
    frame_length,
)
from heliograph.sim.address import Address, connect

__all__ = ["ModuleLine"]


class ModuleLine:
    """Asks the fibre; connects on the first order and again on the next order after the fibre vanished."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def connect(self) -> None:
        """Connect unless connected. Raises TransportClosed if nobody listens or the line was closed."""
        await self._connected()

    async def ask(self, order: Order) -> Report:
        """Send an order and return the report of its block.

        Raises TransportClosed if the fibre vanishes before, RemoteProtocolError if it refuses the block or answers
        nonsense, LocalProtocolError if the block is in flight already.
        """
        connection = await self._connected()
        return await connection.ask(order)

    async def close(self) -> None:
        """End the line; orders in flight get TransportClosed."""
        self._closed = True
        async with self._connecting:
            if self._connection is not None:
                await self._connection.close()

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._closed:
                raise TransportClosed("the module was closed")
            if self._connection is None or self._connection.ended:
                if self._connection is not None:
                    await self._connection.close()
                try:
                    reader, writer = await connect(self._address)
                except OSError as error:
                    raise TransportClosed(
                        f"no fibre at {self._address}: {error.strerror or error}; start the fibre first, or correct "
                        "the module's address"
                    ) from None
                self._connection = _Connection(reader, writer, str(self._address))
            return self._connection


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self._reader = reader
        self._writer = writer
        self._name = name
        self._waiting: dict[int, asyncio.Future[Report]] = {}
        self._end: HeliographError | None = None
        self._listener = asyncio.create_task(self._listen())

    @property
    def ended(self) -> bool:
        return self._end is not None

    async def ask(self, order: Order) -> Report:
        if self._end is not None:
            raise self._end
        if order.block in self._waiting:
            raise LocalProtocolError(f"block {order.block} is in flight already")
        answer: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._waiting[order.block] = answer
        try:
            self._writer.write(encode_frame(order))
            report = await answer
        finally:
            del self._waiting[order.block]
        if isinstance(report, ModuleError):
            raise RemoteProtocolError(f"the fibre refused block {report.block}: {report.reason}")
        return report

    async def close(self) -> None:
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listener
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _listen(self) -> None:
        end: HeliographError = TransportClosed(f"the fibre at {self._name} closed the line")
        try:
            while True:
                header = await self._reader.readexactly(HEADER_BYTES)
                payload = await self._reader.readexactly(frame_length(header, REPORT_BYTES_MAX))
                report = decode_report(payload)
                answer = self._waiting.get(report.block)
                # A report of a block that nobody waits for any more belongs to a call that was cancelled.
                if answer is not None and not answer.done():
                    answer.set_result(report)
        except (asyncio.IncompleteReadError, OSError):
            pass
        except RemoteProtocolError as error:
            end = error
        finally:
            self._end = end
            self._writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(end)
