"""A door's certificate follows its file: new connections get the new one, established ones go on (ADR 0039)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from heliograph.site.reload import Prepared

__all__ = ["Door", "renews"]

_Config = TypeVar("_Config")


class Door(Protocol):
    """A listening server with TLS."""

    async def prepare(self, tls: ssl.SSLContext) -> list[asyncio.Server]:
        """Return what ``renew`` takes. Raises ConfigurationError."""

    async def renew(self, fresh: list[asyncio.Server]) -> None:
        """Use it."""


def renews(door: Door, tls: Callable[[_Config], ssl.SSLContext]) -> Callable[[_Config], Awaitable[Prepared]]:
    """Return what renews the certificate of a door, for ``Reloads.prepare``."""

    async def prepared(config: _Config) -> Prepared:
        fresh = await door.prepare(tls(config))

        def discard() -> None:
            for server in fresh:
                server.close()

        return Prepared(lambda: door.renew(fresh), discard)

    return prepared
