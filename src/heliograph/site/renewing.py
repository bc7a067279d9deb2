"""A door's certificate follows its file: new connections get the new one, established ones go on (ADR 0039)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from heliograph.errors import ConfigurationError
from heliograph.site.reload import Prepared

__all__ = ["Door", "renews"]

_Config = TypeVar("_Config")


class Door(Protocol):
    """A listening server with TLS. ``servers``: none once it is closed."""

    servers: list[asyncio.Server]

    @property
    def what(self) -> str:
        """Its name for a person."""

    async def listen_again(self, raw: socket.socket, tls: ssl.SSLContext) -> asyncio.Server:
        """Return a server at a socket that listens already; it takes no connection yet. Raises OSError."""


def renews(door: Door, tls: Callable[[_Config], ssl.SSLContext]) -> Callable[[_Config], Awaitable[Prepared]]:
    """Return what renews the certificate of a door, for ``Reloads.prepare``."""

    async def prepared(config: _Config) -> Prepared:
        fresh = await _prepare(door, tls(config))
        return Prepared(lambda: _renew(door, fresh), lambda: _close(fresh))

    return prepared


async def _prepare(door: Door, tls: ssl.SSLContext) -> list[asyncio.Server]:
    """Do all that can fail. Raises ConfigurationError."""
    fresh: list[asyncio.Server] = []
    try:
        for raw in [raw for server in door.servers for raw in server.sockets]:
            # The same listening socket under a second descriptor: closing the first one does not close it.
            fresh.append(await door.listen_again(raw.dup(), tls))  # noqa: PERF401  - what was made before a failure is closed
    except OSError as error:
        _close(fresh)
        raise ConfigurationError(f"{door.what}: {error.strerror or error}") from None
    return fresh


async def _renew(door: Door, fresh: list[asyncio.Server]) -> None:
    """Use it for every connection from now on. Established ones go on, none that waits is lost."""
    for server in fresh:
        if door.servers:
            await server.start_serving()
    if not door.servers:  # closed meanwhile: a closed door stays closed
        _close(fresh)
        return
    old, door.servers = door.servers, fresh
    _close(old)


def _close(servers: list[asyncio.Server]) -> None:
    for server in servers:
        server.close()
