"""A door's certificate follows its file: new connections get the new one, established ones go on (ADR 0039)."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from heliograph.site.reload import Prepared

__all__ = ["Door", "renews"]

_Config = TypeVar("_Config")


class Door(Protocol):
    """A server with TLS."""

    def renew(self, tls: ssl.SSLContext) -> None:
        """Shake hands under another context from now on; established connections go on."""


def renews(door: Door, tls: Callable[[_Config], ssl.SSLContext]) -> Callable[[_Config], Awaitable[Prepared]]:
    """Return what renews the certificate of a door, for ``Reloads.prepare``."""

    async def prepared(config: _Config) -> Prepared:
        fresh = tls(config)  # all that can fail

        async def apply() -> None:
            door.renew(fresh)

        return Prepared(apply)

    return prepared
