"""A pair of agents on loopback, a recording relay between their encryptors, and hosts behind them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from heliograph.agent.agent import Agent
from heliograph.agent.config import AgentConfig
from heliograph.encryptors.records import HEADER_BYTES, RecordHeader, parse_header
from heliograph.site.clocks import MonotonicClock
from heliograph.testing.keysource import MemoryKeyManagers

TO_RESPONDER, TO_INITIATOR = 0, 1


def clear_windows(wire: bytes, payload: bytes) -> int:
    """Count the places in ``wire`` where 8 aligned bytes of a random payload stand in clear.

    Every window of 16 bytes of the payload holds such a word, so 0 means that no window was seen. By chance a word of
    20 MiB fits somewhere in 20 MiB of ciphertext with probability 3e-6.
    """
    words = np.sort(np.frombuffer(payload[: len(payload) // 8 * 8], "<u8"))
    maybe = np.zeros(1 << 26, bool)
    maybe[words & (len(maybe) - 1)] = True
    found = 0
    for shift in range(8):
        there = np.frombuffer(wire[shift : shift + (len(wire) - shift) // 8 * 8], "<u8")
        there = there[maybe[there & (len(maybe) - 1)]]
        at = np.minimum(np.searchsorted(words, there), len(words) - 1)
        found += int(np.count_nonzero(words[at] == there))
    return found


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Give the loop turns until something is true; fails the test after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  - turns of the loop, no time
            await asyncio.sleep(0)


Tamper = Callable[[int, int, bytes], list[bytes]]


@dataclass
class Relay:
    """Stands between the encryptors and sees whole records; ``tamper(connection, direction, record)`` replaces one."""

    target: tuple[str, int] = ("127.0.0.1", 0)
    tamper: Tamper = lambda _connection, _direction, record: [record]
    wire: list[bytearray] = field(default_factory=lambda: [bytearray(), bytearray()])
    seen: list[tuple[int, int, bytes]] = field(default_factory=list)
    writers: dict[tuple[int, int], asyncio.StreamWriter] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    port: int = 0
    count: int = 0
    keep_bytes: bool = True

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def _accept(self, reader, writer) -> None:
        task = asyncio.create_task(self._relay(self.count, reader, writer))
        self.count += 1
        self.tasks.add(task)

    async def _relay(self, number, reader, writer) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            self.writers[number, TO_RESPONDER] = far_writer
            self.writers[number, TO_INITIATOR] = writer
            ways = [
                asyncio.create_task(self._pump(number, TO_RESPONDER, reader, far_writer)),
                asyncio.create_task(self._pump(number, TO_INITIATOR, far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                for each in (writer, far_writer):
                    each.close()

    async def _pump(self, number, direction, reader, writer) -> None:
        while True:
            try:
                head = await reader.readexactly(HEADER_BYTES)
            except asyncio.IncompleteReadError:
                writer.close()
                raise
            record = head + await reader.readexactly(parse_header(head).length)
            if self.keep_bytes:
                self.wire[direction] += record
                self.seen.append((number, direction, record))
            for each in self.tamper(number, direction, record):
                writer.write(each)
            await writer.drain()

    def headers(self) -> list[RecordHeader]:
        return [parse_header(record[:HEADER_BYTES]) for _, _, record in self.seen]

    async def close(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()


class RawRelay(Relay):
    """Sees the bytes of TLS as they are; keeps what each connection said."""

    async def _pump(self, number, direction, reader, writer):
        while chunk := await reader.read(1 << 18):
            self.wire[direction] += chunk
            self.seen.append((number, direction, chunk))
            for each in self.tamper(number, direction, chunk):
                writer.write(each)
            await writer.drain()
        writer.close()


@dataclass
class Host:
    """A TCP host behind the responder: keeps what it gets and answers by ``reply``."""

    reply: Callable[[bytes], bytes] = lambda _: b"thank you"
    received: list[bytearray] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    reading: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        self.reading.set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def _accept(self, reader, writer) -> None:
        self.tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader, writer) -> None:
        number = len(self.received)
        self.received.append(bytearray())
        self.whole.append(False)
        try:
            while True:
                await self.reading.wait()
                chunk = await reader.read(1 << 18)
                if not chunk:
                    break
                self.received[number] += chunk
            self.whole[number] = True
            writer.write(self.reply(bytes(self.received[number])))
            writer.write_eof()
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()


class Sites:
    """Initiator A with a forward "web", responder B with the target, a relay between; ``async with`` starts all."""

    def __init__(
        self,
        *,
        clock=None,
        relay: Relay | None = None,
        stock: int = 1_000_000,
        forwarder_changes=None,
        identities=None,
        **settings,
    ) -> None:
        self.clock = clock or MonotonicClock()
        self.relay = relay or Relay()
        self.keys = MemoryKeyManagers(stock)
        self.forwarder_changes = forwarder_changes or {}
        self.settings = {"rekey_bytes": 1 << 30, **settings}
        self.limits: dict[str, float] = {}
        self.source_a, self.source_b = self.keys.master, self.keys.slave
        self.identity_a, self.identity_b = identities or (None, None)
        self.host = Host()

    async def __aenter__(self) -> Self:
        await self.host.start()
        await self.relay.start()
        await self.start_b()
        await self.start_a()
        return self

    async def start_b(self, control: str = "127.0.0.1:0", outer: str = "127.0.0.1:0") -> None:
        document = {
            "role": "responder",
            "control": control,
            "outer_listen": outer,
            "targets": {"web": f"127.0.0.1:{self.host.port}"},
            **self.settings,
        }
        self.b = Agent(self._config(document), self.source_b, self.clock, self.identity_b)
        await self.b.start()
        self.relay.target = tuple(self.b.forwarder.outer_address)

    async def start_a(self) -> None:
        document = {
            "role": "initiator",
            "control": str(self.b.control_address),
            "outer_connect": f"127.0.0.1:{self.relay.port}",
            "forwards": {"web": "127.0.0.1:0"},
            **self.settings,
        }
        self.a = Agent(self._config(document), self.source_a, self.clock, self.identity_a)
        await self.a.start()

    def _config(self, document) -> AgentConfig:
        config = AgentConfig.from_mapping(document)
        config = replace(config, rotation=replace(config.rotation, **self.limits))
        return replace(config, forwarder=replace(config.forwarder, **self.forwarder_changes))

    async def settled(self) -> None:
        await until(lambda: self.a.status().state == self.b.status().state == "Active")

    async def dial(self):
        return await asyncio.open_connection(*self.a.forwarder.inner_addresses["web"], limit=1 << 20)

    async def exchange(self, payload: bytes, seconds: float = 60.0) -> bytes:
        """Send a payload from a host behind A, end the sending half, and return the whole answer."""
        async with asyncio.timeout(seconds):
            reader, writer = await self.dial()
            try:
                writer.write(payload)
                writer.write_eof()
                await writer.drain()
                return await reader.read(-1)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def __aexit__(self, *_) -> None:
        await self.a.close()
        await self.b.close()
        await self.relay.close()
        await self.host.close()
