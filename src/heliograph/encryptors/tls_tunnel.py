"""An inner connection carried by TLS connections that follow each other, one for each generation of keys.

    kind u8 | length u32 | payload        kind: OPEN, ACCEPT, DATA, CLOSE as in ``records``, MOVED, CONTINUE

At a rotation the opener opens a TLS connection under the new key, says CONTINUE and the index there, and MOVED with its
count of frames on the old one; the other side answers MOVED on the old one. Each direction is read to its MOVED before
the next connection is read, so nothing is lost and nothing overtakes. TLS keeps order and finds every forgery.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from heliograph.consumer.keys import key_id_text
from heliograph.encryptors.keyring import Ring
from heliograph.encryptors.psk_generation import PskGeneration
from heliograph.encryptors.records import MAX_PAYLOAD_BYTES, RecordType
from heliograph.encryptors.tls_stream import TlsStream
from heliograph.errors import LocalProtocolError, RemoteProtocolError, TransportClosed

__all__ = ["CONTINUE", "INDEX", "MOVED", "TlsLeg", "TlsTunnel", "read_frame", "send_frame"]

_HEADER: Final = struct.Struct(">BI")
INDEX: Final = struct.Struct(">I")
_COUNT: Final = struct.Struct(">Q")
MOVED: Final = 16
CONTINUE: Final = 17
_FOLLOW_SECONDS: Final = 10.0  # our choice: how long a direction waits for the connection it moved to


@dataclass(slots=True, eq=False)
class TlsLeg:
    """One TLS connection of a tunnel and the generation it is under.

    ``sent``, ``received``: frames, but for CONTINUE and MOVED; ``left``: set once neither direction is on it any more.
    """

    stream: TlsStream
    generation: PskGeneration
    sent: int = 0
    received: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)


def send_frame(stream: TlsStream, kind: int, payload: bytes = b"") -> None:
    """Queue one frame. Raises TransportClosed."""
    stream.send(_HEADER.pack(kind, len(payload)) + payload)


async def read_frame(stream: TlsStream) -> tuple[int, bytes]:
    """Return the next frame. Raises RemoteProtocolError, TransportClosed."""
    kind, size = _HEADER.unpack(await stream.read_exactly(_HEADER.size))
    if size > MAX_PAYLOAD_BYTES:
        raise RemoteProtocolError(f"a frame of {size} bytes: at most {MAX_PAYLOAD_BYTES} are allowed")
    return kind, await stream.read_exactly(size)


class TlsTunnel:
    """``tunnel.Carrier`` over TLS. ``on_progress``: its generation moved; ``move``: dial anew, given by the opener."""

    def __init__(
        self,
        keyring: Ring[PskGeneration],
        index: int,
        leg: TlsLeg,
        on_progress: Callable[[], None],
        move: Callable[[TlsTunnel], None] | None,
    ) -> None:
        self.index: Final = index
        self.keyring = keyring
        self._sending = self._receiving = leg
        self._following: list[TlsLeg] = []
        self._left: list[TlsLeg] = []
        self._followed = asyncio.Event()
        self._on_progress = on_progress
        self._move = move
        self._closed_out = self._closed_in = self._accepted = False
        self._opened = False

    @property
    def generation(self) -> PskGeneration:
        """The generation that this direction is sent under."""
        return self._sending.generation

    async def write(self, kind: RecordType, payload: bytes = b"") -> None:
        """Send one frame; wait, and send nothing, while no generation may carry it. Raises TransportClosed."""
        if self._closed_out:
            raise LocalProtocolError(f"connection {self.index}: {kind.name} after our close")
        while not self._may_send(kind, len(payload)):
            if not self.keyring.holds(self._sending.generation.key_id):
                raise TransportClosed("the key of this connection was retired before it could move to the next one")
            await self.keyring.changed()
        leg = self._sending
        send_frame(leg.stream, kind, INDEX.pack(self.index) + payload if kind is RecordType.OPEN else payload)
        leg.sent += 1
        leg.generation.sent_records += 1
        leg.generation.sent_bytes += len(payload)
        self.keyring.count()
        if kind is RecordType.CLOSE:
            self._closed_out = True
            self._on_progress()
        await leg.stream.drain()

    def _may_send(self, kind: RecordType, size: int) -> bool:
        generation = self._sending.generation
        return self.keyring.holds(generation.key_id) and generation.may_send(
            size if kind is RecordType.DATA else 0, self.keyring.now()
        )

    async def read(self) -> tuple[RecordType, bytes]:
        """Return the next frame that is about the inner connection. Raises RemoteProtocolError, TransportClosed."""
        while True:
            leg = self._receiving
            kind, payload = await read_frame(leg.stream)
            self._check_age(leg)
            if kind == MOVED:
                await self._follow(leg, payload)
                continue
            record = self._in_place(kind)
            leg.received += 1
            leg.generation.received_records += 1
            leg.generation.received_bytes += len(payload)
            self.keyring.count()
            if record is RecordType.CLOSE:
                self._closed_in = True
                self._on_progress()
            return record, payload

    def _in_place(self, kind: int) -> RecordType:
        opener = self._move is not None
        if self._closed_in:
            raise RemoteProtocolError(f"connection {self.index}: frame {kind} after the peer's close")
        if kind == RecordType.ACCEPT and opener and not self._accepted:
            self._accepted = True
        elif kind not in (RecordType.DATA, RecordType.CLOSE) or (opener and not self._accepted):
            raise RemoteProtocolError(f"connection {self.index}: frame {kind} out of place")
        return RecordType(kind)

    def _check_age(self, leg: TlsLeg) -> None:
        generation = leg.generation
        if not (self.keyring.holds(generation.key_id) and generation.may_receive(self.keyring.now())):
            raise RemoteProtocolError(f"{generation!r} is retired or too old: nothing is accepted under it")

    async def _follow(self, leg: TlsLeg, payload: bytes) -> None:
        """Go over to the connection that this direction moved to."""
        if len(payload) != _COUNT.size or _COUNT.unpack(payload) != (leg.received,):
            raise RemoteProtocolError(f"connection {self.index}: moved, but not after {leg.received} frames")
        try:
            async with asyncio.timeout(_FOLLOW_SECONDS):
                while not self._following:
                    self._followed.clear()
                    await self._followed.wait()
        except TimeoutError:
            raise TransportClosed(f"connection {self.index}: moved to a connection that never came") from None
        self._receiving = self._following.pop(0)
        self._leave(leg)
        self._on_progress()

    # Moving.

    def switch(self) -> None:
        """At the opener: begin to move to the generation that was just activated; the other side follows."""
        if self._move is not None and self._opened and not (self._closed_out and self._closed_in):
            self._move(self)

    def opened(self) -> None:
        """Note that the peer knows this connection: from now on it can move. Moves if a rotation was in between."""
        self._opened = True
        active = self.keyring.sending
        if active is not None and active.key_id != self.generation.key_id:
            self.switch()

    def move_to(self, leg: TlsLeg) -> None:
        """Send on this connection from now on, and read it once the peer has moved. Raises RemoteProtocolError.

        At the opener, after its CONTINUE; at the other side, when that came.
        """
        before = self._sending
        if leg.generation.since < before.generation.since or leg.generation.key_id == before.generation.key_id:
            raise RemoteProtocolError(
                f"connection {self.index} is to move from key {key_id_text(before.generation.key_id)} "
                f"to {key_id_text(leg.generation.key_id)}, which is no newer"
            )
        send_frame(before.stream, MOVED, _COUNT.pack(before.sent))
        self._sending = leg
        self._following.append(leg)
        self._followed.set()
        self._leave(before)
        self.keyring.notify()
        self._on_progress()

    def _leave(self, leg: TlsLeg) -> None:
        """Close a connection that neither direction is on; what is buffered still goes."""
        if leg in self._legs():
            return
        leg.stream.finish()
        leg.left.set()
        self._left = [each for each in self._left if each.stream.unsent] + [leg]

    def may_bring(self, key_id: bytes) -> bool:
        """Whether a direction that is not closed is under this generation.

        The opener alone can move a connection, so the other side's own sending has to be waited for too.
        """
        sending = not self._closed_out and self._sending.generation.key_id == key_id
        receiving = not self._closed_in and self._receiving.generation.key_id == key_id
        return sending or receiving

    @property
    def is_behind(self) -> bool:
        """Whether a newer generation is installed than the last frame came under."""
        return not self._closed_in and self._receiving.generation.key_id != self.keyring.newest

    async def close(self) -> None:
        """End after what is buffered has left."""
        for leg in [*self._left, *self._legs()]:
            await leg.stream.close()
            leg.left.set()

    def abort(self) -> None:
        """End at once."""
        for leg in [*self._left, *self._legs()]:
            leg.stream.abort()
            leg.left.set()

    def _legs(self) -> list[TlsLeg]:
        return list(dict.fromkeys([self._sending, self._receiving, *self._following]))
