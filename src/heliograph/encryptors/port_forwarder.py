"""What the encryptors that forward TCP ports have in common: listening, caps, hosts, and the life of a connection.

A host on this site connects to an inner port; the encryptor opens one outer connection to the peer's encryptor, which
connects to the target that its own configuration gives to the forward's name. Nothing of the inner connection is read
before the peer answered under a live generation, and nothing is ever sent in clear.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic

from heliograph.consumer.encryptor import EncryptorReport
from heliograph.consumer.keys import Role, TunnelKeys
from heliograph.encryptors.addresses import Address
from heliograph.encryptors.keyring import G, Ring
from heliograph.encryptors.records import (
    MAX_CONNECTIONS_OPENED,
    RecordType,
    connection_index,
)
from heliograph.encryptors.tunnel import STREAM_LIMIT_BYTES, Carrier, abort, carry, reset
from heliograph.encryptors.waiting_room import WaitingRoom
from heliograph.errors import ConfigurationError, HeliographError, RemoteProtocolError, TransportClosed

__all__ = ["Forward", "ForwarderConfig", "ForwarderCounts", "PortForwarder", "Streams"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Forward:
    """An inner port to listen on, and the name under which the peer knows where it leads."""

    listen: Address
    name: str


@dataclass(frozen=True, slots=True)
class ForwarderConfig:
    """One side's set-up. Raises ConfigurationError if contradictory.

    ``forwards`` need ``outer_connect``, ``targets`` need ``outer_listen``; a side may have both. Inner addresses are
    traffic in clear: they must be on this machine unless ``inner_lan`` declares the site's LAN to be inside the
    boundary. ``max_unauthenticated``: outer connections that have not yet shown one valid record, each for at most
    ``first_record_seconds``; for a moment four times as many (``waiting_room``).
    """

    outer_listen: Address | None = None
    outer_connect: Address | None = None
    forwards: tuple[Forward, ...] = ()
    targets: Mapping[str, Address] = field(default_factory=dict)
    inner_lan: bool = False
    max_unauthenticated: int = 64
    max_connections: int = 1024
    first_record_seconds: float = 5.0
    connect_seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.forwards and self.outer_connect is None:
            raise ConfigurationError("forwards are given but no outer_connect: add the peer encryptor's address")
        if self.targets and self.outer_listen is None:
            raise ConfigurationError("targets are given but no outer_listen: add the address the peer connects to")
        for name in [*(forward.name for forward in self.forwards), *self.targets]:
            if not 1 <= len(name.encode()) <= 255:
                raise ConfigurationError(f"forward name {name!r}: must have 1 to 255 bytes")
        for address in [*(forward.listen for forward in self.forwards), *self.targets.values()]:
            if not (self.inner_lan or address.is_loopback):
                raise ConfigurationError(
                    f"inner address {address} is not on this machine, so user traffic would cross a network in clear: "
                    "use a loopback address, or set inner_lan = true if that network lies inside the site's boundary"
                )


@dataclass(slots=True)
class ForwarderCounts:
    """What happened since the start.

    ``refused``: records and connections that broke a rule; ``cut``: connections that ended without an authenticated
    close; ``turned_away``: outer connections over a cap, out of time, or opened under a key not in use.
    """

    opened: int = 0
    completed: int = 0
    refused: int = 0
    cut: int = 0
    turned_away: int = 0


class PortForwarder(ABC, Generic[G]):
    """Carries connections under the generations that ``install``, ``activate`` and ``retire`` tell it of.

    ``on_drained(key_id)``: the answer to ``drain``; it may be called from within any of the methods. What protects the
    outer connections is up to a class of its own: ``_dial`` and ``_answer``.
    """

    def __init__(
        self, role: Role, config: ForwarderConfig, keyring: Ring[G], on_drained: Callable[[bytes], None]
    ) -> None:
        self.keyring: Final = keyring
        self.counts: Final = ForwarderCounts()
        self._role = role
        self._config = config
        self._on_drained = on_drained
        self._draining: bytes | None = None
        self._tunnels: set[Carrier] = set()
        self._waiting: WaitingRoom[asyncio.StreamWriter] = WaitingRoom(config.max_unauthenticated)
        self._serial = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self.outer_address: Address | None = None
        self.inner_addresses: dict[str, Address] = {}

    async def start(self) -> None:
        """Listen. Raises ConfigurationError if an address cannot be used."""
        try:
            if self._config.outer_listen is not None:
                self.outer_address = await self._listen(self._config.outer_listen, self._on_outer)
            for forward in self._config.forwards:
                serve = self._inner_handler(forward.name)
                self.inner_addresses[forward.name] = await self._listen(forward.listen, serve)
        except ConfigurationError:
            await self.close()
            raise

    async def close(self) -> None:
        """End everything and forget every key; connections that are still open are reset."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        self.keyring.forget_all()

    # What the rotation asks for.

    def install(self, keys: TunnelKeys, since: float) -> None:
        """Accept records under these keys, fetched at ``since``."""
        self.keyring.install(keys, since)

    def activate(self, key_id: bytes) -> None:
        """Send under this generation from the next record on, and show it on every live connection."""
        self.keyring.activate(key_id)
        for tunnel in self._tunnels:
            tunnel.switch()

    def drain(self, key_id: bytes) -> None:
        """Call ``on_drained`` once no live connection can bring records of this generation."""
        self._draining = key_id
        self._check_drained()

    def retire(self, key_id: bytes) -> None:
        """Forget this generation."""
        self.keyring.retire(key_id)
        if self._draining == key_id:
            self._draining = None

    def seen(self, key_id: bytes) -> bool:
        """Whether this key was installed before; its nonces are used."""
        return self.keyring.seen(key_id)

    def holds(self, key_id: bytes) -> bool:
        """Every order is carried out at once."""
        return self.seen(key_id)

    def check(self) -> None:
        """Nothing to look at: every record says which generation it is under."""

    def report(self) -> EncryptorReport:
        """Return a snapshot."""
        keyring, counts, traffic = self.keyring, self.counts, self.keyring.traffic
        active = keyring.active
        return EncryptorReport(
            key_id=active.key_id if active else None,
            since=active.since if active else 0.0,
            sending=keyring.sending is not None,
            live_connections=len(self._tunnels),
            completed_connections=counts.completed,
            sent_records=traffic.sent_records,
            sent_bytes=traffic.sent_bytes,
            received_records=traffic.received_records,
            received_bytes=traffic.received_bytes,
            refused_records=counts.refused,
            cut_connections=counts.cut,
            turned_away=counts.turned_away,
            pad_bytes_left=active.pad_left if active else None,
        )

    def _check_drained(self) -> None:
        key_id = self._draining
        if key_id is not None and not any(tunnel.may_bring(key_id) for tunnel in self._tunnels):
            self._draining = None
            self._on_drained(key_id)

    # Connections.

    async def _listen(self, address: Address, serve: Callable[..., None]) -> Address:
        try:
            server = await asyncio.start_server(serve, address.host, address.port, limit=STREAM_LIMIT_BYTES)
        except OSError as why:
            raise ConfigurationError(f"cannot listen on {address}: {why.strerror or why}; choose another port") from why
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        return Address(host, port)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _inner_handler(self, name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._spawn(self._guard(self._forward(name, (reader, writer)), writer))

        return serve

    def _on_outer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cap before anything is read: an unauthenticated connection costs one socket for a short time. Whether there is
        # room for a connection of a host is asked when it is known to be one: it may be one that moves.
        address = str((writer.get_extra_info("peername") or ("",))[0])
        gone = self._waiting.enter(writer, address, asyncio.get_running_loop().time())
        self._send_away(gone)
        if gone is not writer:
            self._spawn(self._guard(self._answer((reader, writer)), writer))

    def _send_away(self, gone: asyncio.StreamWriter | None) -> None:
        if gone is not None:
            abort(gone)
            self.counts.turned_away += 1

    async def _guard(self, work: Coroutine[Any, Any, None], writer: asyncio.StreamWriter) -> None:
        """Run one connection; however it ends early, the accepted side of it is reset and the outcome counted."""
        try:
            await work
        except RemoteProtocolError:
            self.counts.refused += 1
        except TimeoutError:
            self.counts.turned_away += 1
        except (HeliographError, OSError):
            self.counts.cut += 1
        finally:
            self._waiting.leave(writer)
            reset(writer)

    @contextlib.contextmanager
    def _live(self, tunnel: Carrier) -> Any:  # noqa: ANN401  - a context manager that gives nothing
        self._tunnels.add(tunnel)
        try:
            yield
        finally:
            tunnel.abort()
            self._tunnels.discard(tunnel)
            self._check_drained()

    async def _forward(self, name: str, inner: Streams) -> None:
        """Open a tunnel for a host's connection and carry it."""
        opened = False
        while True:
            while (generation := self.keyring.sending) is None:
                await self.keyring.changed()  # nothing is read, nothing is sent
            try:
                tunnel = await self._dial()
                with self._live(tunnel):
                    await tunnel.write(RecordType.OPEN, name.encode())
                    await self._await_accept(tunnel)
                    opened = True
                    await self._carry(tunnel, inner)
                    return
            except TransportClosed:
                # A rotation overtook our OPEN; nothing of the host was read yet, so open again.
                if opened or self.keyring.sending in (None, generation):
                    raise

    def _next_index(self) -> int:
        """Return the index of a connection that we open. Raises TransportClosed at a cap."""
        if self._serial >= MAX_CONNECTIONS_OPENED or len(self._tunnels) >= self._config.max_connections:
            raise TransportClosed("no more connections: the cap is reached, or a restart is needed after 2^31 of them")
        self._serial += 1
        return connection_index(self._role, self._serial - 1)

    async def _connect(self) -> Streams:
        peer = self._config.outer_connect
        assert peer is not None, "forwards need outer_connect"
        async with asyncio.timeout(self._config.connect_seconds):
            return await asyncio.open_connection(peer.host, peer.port, limit=STREAM_LIMIT_BYTES)

    @abstractmethod
    async def _dial(self) -> Carrier:
        """Open an outer connection, for one record OPEN. Raises TransportClosed, RemoteProtocolError, OSError."""

    @abstractmethod
    async def _answer(self, outer: Streams) -> None:
        """Take an outer connection; ``_serve`` it once its first record has proved the peer."""

    async def _await_accept(self, tunnel: Carrier) -> None:
        async with asyncio.timeout(self._config.connect_seconds + self._config.first_record_seconds):
            await tunnel.read()  # nothing but ACCEPT is accepted here

    async def _serve(self, tunnel: Carrier, name: bytes) -> None:
        """Connect to the target that an authenticated peer names and carry; over the cap, turn it away."""
        if len(self._tunnels) >= self._config.max_connections:
            self.counts.turned_away += 1
            tunnel.abort()
            return
        with self._live(tunnel):
            target = self._config.targets.get(name.decode(errors="replace"))
            if target is None:
                raise RemoteProtocolError(f"the peer asks for a forward {name!r} that is not among our targets")
            async with asyncio.timeout(self._config.connect_seconds):
                inner = await asyncio.open_connection(target.host, target.port, limit=STREAM_LIMIT_BYTES)
            self.counts.opened += 1
            try:
                await tunnel.write(RecordType.ACCEPT)
                await self._carry(tunnel, inner)
            finally:
                reset(inner[1])

    async def _carry(self, tunnel: Carrier, inner: Streams) -> None:
        reader, writer = inner
        await carry(tunnel, reader, writer)
        self.counts.completed += 1
        # Both halves ended in order: let what is buffered reach the host and the peer before closing.
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await tunnel.close()
