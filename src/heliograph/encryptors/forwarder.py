"""The built-in encryptor: forwards TCP ports between two sites, without root, under the generations it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from heliograph.consumer.keys import Role
from heliograph.encryptors.generation import Generation, GenerationLimits
from heliograph.encryptors.keyring import Keyring
from heliograph.encryptors.port_forwarder import ForwarderConfig, PortForwarder, Streams
from heliograph.encryptors.records import RecordType, opener_of
from heliograph.encryptors.tunnel import Tunnel, read_record
from heliograph.errors import RemoteProtocolError
from heliograph.ports import Clock

__all__ = ["Forwarder"]


class Forwarder(PortForwarder[Generation]):
    """Records of our own (``records``), one outer connection for each inner one.

    ``on_nearly_used(key_id)``: half of a limit of the active generation is used; ``on_drained(key_id)``: the answer to
    ``drain``. Both may be called from within any of the methods.
    """

    def __init__(
        self,
        role: Role,
        config: ForwarderConfig,
        limits: GenerationLimits,
        clock: Clock,
        *,
        on_nearly_used: Callable[[bytes], None],
        on_drained: Callable[[bytes], None],
    ) -> None:
        super().__init__(role, config, Keyring(role, limits, clock, on_nearly_used), on_drained)

    async def _dial(self) -> Tunnel:
        index = self._next_index()
        reader, writer = await self._connect()
        self.counts.opened += 1
        return Tunnel(self.keyring, index, reader, writer, self._check_drained)

    async def _answer(self, outer: Streams) -> None:
        """Check a new outer connection's first record, connect to the target and carry."""
        reader, writer = outer
        async with asyncio.timeout(self._config.first_record_seconds):
            header, body = await read_record(reader)
        if header.kind is not RecordType.OPEN or opener_of(header.connection) is not self._role.peer:
            raise RemoteProtocolError(f"a connection begins with {header.kind.name}, not with the peer's OPEN")
        if not self.keyring.holds(header.key_id):
            # A rotation overtook this OPEN, and the peer opens again; or it is junk. Nothing is at stake.
            self.counts.turned_away += 1
            return
        tunnel = Tunnel(self.keyring, header.connection, reader, writer, self._check_drained)
        name = tunnel.admit(header, body)
        self._waiting.prove(writer)
        await self._serve(tunnel, name)
