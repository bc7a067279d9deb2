"""TLS 1.3 with external preshared keys in place of our own records: TCP ports between two sites, without root.

The same inner side, caps, rotation and rules as the built-in encryptor (``port_forwarder``); outside is TLS 1.3 that
other programs speak too. One preshared key, derived from the generation's, for each TLS connection
(``psk_generation``); a connection of a host moves to a new TLS connection at each rotation (``tls_tunnel``), and ends
with its key if it could not.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Final

from heliograph.consumer.keys import Role
from heliograph.encryptors.generation import GenerationLimits
from heliograph.encryptors.keyring import Ring
from heliograph.encryptors.port_forwarder import ForwarderConfig, PortForwarder, Streams
from heliograph.encryptors.psk_generation import PskGeneration, read_identity
from heliograph.encryptors.records import RecordType, opener_of
from heliograph.encryptors.tls_stream import EXPORTED_BYTES, TlsStream, accept_tls, open_tls
from heliograph.encryptors.tls_tunnel import CONTINUE, INDEX, TlsLeg, TlsTunnel, read_frame, send_frame
from heliograph.encryptors.tunnel import Carrier, abort
from heliograph.errors import HeliographError, RemoteProtocolError, TransportClosed
from heliograph.ports import Clock

__all__ = ["TlsForwarder"]

_PROOF_BYTES: Final = EXPORTED_BYTES
# Our choice: pauses before a move is tried again; the old key's retirement ends it.
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0


class TlsForwarder(PortForwarder[PskGeneration]):
    """``consumer.encryptor.Encryptor``. The callbacks are those of ``Forwarder``."""

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
        super().__init__(role, config, Ring(PskGeneration, role, limits, clock, on_nearly_used), on_drained)
        self._taken: dict[int, TlsTunnel] = {}  # connections that the peer opened, by their index
        self._moving: set[TlsTunnel] = set()

    def retire(self, key_id: bytes) -> None:
        """Forget this generation, and end every connection that is still under it."""
        super().retire(key_id)
        for tunnel in list(self._tunnels):
            if tunnel.may_bring(key_id):
                tunnel.abort()

    # Connections that we open.

    async def _dial(self) -> TlsTunnel:
        index = self._next_index()
        generation = self.keyring.sending
        if generation is None:
            raise TransportClosed("no generation is active: nothing is opened until a key comes")
        leg = await self._open_leg(generation)
        self.counts.opened += 1
        return TlsTunnel(self.keyring, index, leg, self._check_drained, self._move)

    async def _open_leg(self, generation: PskGeneration) -> TlsLeg:
        """Open a TLS connection under this generation. Raises TransportClosed, OSError, TimeoutError."""
        reader, writer = await self._connect()
        identity = generation.offer()
        try:
            async with asyncio.timeout(self._config.first_record_seconds):
                stream = await open_tls(reader, writer, identity, generation.psk(self._role, identity))
                exported = stream.exported()
                stream.send(generation.proof(self._role, exported))
                generation.check_proof(await stream.read_exactly(_PROOF_BYTES), exported)
        except RemoteProtocolError as why:
            self.counts.refused += 1
            abort(writer)
            raise TransportClosed(str(why)) from None
        except BaseException:
            abort(writer)
            raise
        return TlsLeg(stream, generation)

    async def _await_accept(self, tunnel: Carrier) -> None:
        await super()._await_accept(tunnel)
        assert isinstance(tunnel, TlsTunnel)
        tunnel.opened()

    def _move(self, tunnel: TlsTunnel) -> None:
        if tunnel not in self._moving:
            self._moving.add(tunnel)
            self._spawn(self._keep_moving(tunnel))

    async def _keep_moving(self, tunnel: TlsTunnel) -> None:
        """Bring a connection under the active generation; try again until its old key is retired and it ends."""
        pause = _FIRST_PAUSE_SECONDS
        try:
            while tunnel in self._tunnels:
                generation = self.keyring.sending
                if generation is None or generation.key_id == tunnel.generation.key_id:
                    return
                try:
                    leg = await self._open_leg(generation)
                except (HeliographError, OSError):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                    continue
                if tunnel not in self._tunnels:
                    leg.stream.abort()
                    return
                send_frame(leg.stream, CONTINUE, INDEX.pack(tunnel.index))
                tunnel.move_to(leg)
        except HeliographError:
            tunnel.abort()  # the old connection broke in between: what it carried is not complete
        finally:
            self._moving.discard(tunnel)

    # Connections that the peer opens.

    async def _answer(self, outer: Streams) -> None:
        try:
            async with asyncio.timeout(self._config.first_record_seconds):
                leg = await self._accept_leg(*outer)
                kind, payload = await read_frame(leg.stream)
        except TransportClosed:
            self.counts.turned_away += 1  # it carried nothing yet: the peer's connection ended while it moved, or junk
            return
        self._waiting.prove(outer[1])
        if not self.keyring.holds(leg.generation.key_id):
            self.counts.turned_away += 1  # a rotation overtook it, and the peer opens again
            return
        index = INDEX.unpack(payload[: INDEX.size])[0] if len(payload) >= INDEX.size else None
        if kind not in (RecordType.OPEN, CONTINUE) or index is None or opener_of(index) is not self._role.peer:
            raise RemoteProtocolError(f"a TLS connection begins with frame {kind}, not with the peer's OPEN")
        if kind == CONTINUE:
            await self._continue(index, leg)
            return
        if index in self._taken:
            raise RemoteProtocolError(f"the peer opens connection {index} a second time")
        leg.received = 1
        tunnel = TlsTunnel(self.keyring, index, leg, self._check_drained, None)
        self._taken[index] = tunnel
        try:
            await self._serve(tunnel, payload[INDEX.size :])
        finally:
            del self._taken[index]

    async def _accept_leg(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> TlsLeg:
        stream = await accept_tls(reader, writer, self._find, lambda: self._send_away(self._waiting.show(writer)))
        generation, number = self._named(stream)
        exported = stream.exported()
        generation.check_proof(await stream.read_exactly(_PROOF_BYTES), exported)
        generation.take(number)  # burnt before the first frame is read
        stream.send(generation.proof(self._role, exported))
        return TlsLeg(stream, generation)

    def _find(self, identity: bytes) -> bytes | None:
        """Return the preshared key that the peer may open a connection under; nothing changes yet."""
        found = self._generation_of(identity)
        if found is None:
            return None
        generation, number = found
        if not generation.may_receive(self.keyring.now()) or generation.was_taken(number):
            return None
        return generation.psk(self._role.peer, identity)

    def _named(self, stream: TlsStream) -> tuple[PskGeneration, int]:
        found = self._generation_of(stream.identity)
        if found is None:
            raise RemoteProtocolError("the key of a TLS connection was retired during its handshake")
        return found

    def _generation_of(self, identity: bytes) -> tuple[PskGeneration, int] | None:
        parts = read_identity(identity)
        try:
            key_id = uuid.UUID(parts[0]) if parts else None
        except ValueError:
            return None
        if parts is None or key_id is None or str(key_id) != parts[0] or not self.keyring.holds(key_id.bytes):
            return None
        return self.keyring.receiving(key_id.bytes), parts[1]

    async def _continue(self, index: int, leg: TlsLeg) -> None:
        """Let one of the peer's connections move here; return when it has left again."""
        tunnel = self._taken.get(index)
        try:
            if tunnel is not None:
                tunnel.move_to(leg)
        except TransportClosed:
            tunnel = None
        if tunnel is None:
            self.counts.turned_away += 1  # it ended meanwhile; if it broke, its own task says so
            return
        await leg.left.wait()
        await leg.stream.close()
