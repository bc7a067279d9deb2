"""The handshake of one connection over a transport: who waits for whom, and what is on the disk before which byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from heliograph.errors import TransportClosed
from heliograph.protocol.handshake import Established, Initiator, Presence, Responder
from heliograph.protocol.hello import HELLO_BYTES_MAX
from heliograph.site.doors import LinkDoors
from heliograph.transport.tcp import TcpTransport

__all__ = ["greet", "welcome"]

# Our choices. Where people's certificates are checked by another program, that takes its time.
_HANDSHAKE_S = 5.0
_SIGNED_HANDSHAKE_S = 15.0
_T = TypeVar("_T")


async def _outside(executor: Executor, call: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def _limit_s(doors: LinkDoors) -> float:
    return _HANDSHAKE_S if doors.hello_bytes_max == HELLO_BYTES_MAX else _SIGNED_HANDSHAKE_S


async def greet(
    transport: TcpTransport, doors: LinkDoors, store: Executor, anchor: Executor
) -> tuple[Presence, Established]:
    """Shake hands as the one who dialled. Raises RemoteProtocolError, TransportClosed, TimeoutError and others."""
    presence, door = await _outside(store, lambda: (doors.presence(), doors.initial()))
    side = Initiator(doors.identity, presence, doors.draw(), doors.now())
    async with asyncio.timeout(_limit_s(doors)):
        try:
            await transport.send(side.hello(door))
            wire = await transport.receive(doors.hello_bytes_max)
        except TransportClosed:
            # It says nothing to whoever has not proved itself, so this site can only say what its operator can do.
            raise TransportClosed(
                "the peer ended the handshake: its log says why; if one operator ran `heliograph site rebootstrap`, "
                "the other has to as well"
            ) from None
        last, established = await _outside(anchor, lambda: side.confirm(wire))
        await _outside(store, lambda: doors.accept(established, presence))
        await transport.send(last)
        side.welcome(await transport.receive(HELLO_BYTES_MAX))
        await _outside(store, lambda: doors.confirmed(presence))
    return presence, established


async def welcome(
    transport: TcpTransport,
    doors: LinkDoors,
    store: Executor,
    anchor: Executor,
    heard: Callable[[], None] = lambda: None,
) -> tuple[Presence, Established]:
    """Shake hands as the one who listened; raises as ``greet`` does. ``heard`` is called when the hello is here."""
    async with asyncio.timeout(_limit_s(doors)):
        hello = await transport.receive(doors.hello_bytes_max)
        heard()
        # Only now: what this site said of itself when the connection was opened may be old news to the peer, who would
        # have to take one of the two for a copy. Whoever holds a connection open must not choose that moment.
        presence = await _outside(store, doors.presence)
        side = Responder(doors.identity, presence, doors.draw(), doors.now())
        await transport.send(await _outside(anchor, lambda: side.reply(hello, doors.of)))
        try:
            confirmation = await transport.receive(doors.hello_bytes_max)
        except TransportClosed:
            # Whoever called has this site's proof and did not believe it: the more probable reasons first.
            raise TransportClosed(
                "the peer ended the handshake, its log says why: the registrations (link.json) or the anchors of the "
                "two sites are not the same"
            ) from None
        established = await _outside(anchor, lambda: side.finish(confirmation))

        def stored() -> None:
            doors.accept(established, presence)
            doors.confirmed(presence)

        await _outside(store, stored)
        await transport.send(side.welcome())
    return presence, established
