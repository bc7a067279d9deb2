"""Where the fibre listens: ``unix:/path`` or ``tcp:host:port``."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from heliograph.errors import ConfigurationError

__all__ = ["Address", "connect", "listen", "parse_address"]

_UNIX_PATH_BYTES_MAX: Final = 107  # sun_path of Linux, without its final zero
_BUFFER_BYTES: Final = 2**20

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Address:
    """Either ``path`` (a Unix socket), or ``host`` and ``port``."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"tcp:{self.host}:{self.port}"


def parse_address(text: object, entry: str) -> Address:
    """Return the address written in ``text``. Raises ConfigurationError naming ``entry``."""
    if isinstance(text, str):
        scheme, _, rest = text.partition(":")
        if scheme == "unix" and rest.startswith("/") and len(os.fsencode(rest)) <= _UNIX_PATH_BYTES_MAX:
            return Address(path=rest)
        host, _, port = rest.rpartition(":")
        if scheme == "tcp" and host and re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535:
            return Address(host=host, port=int(port))
    raise ConfigurationError(
        f"{entry} = {text!r}: write unix:/absolute/path (at most {_UNIX_PATH_BYTES_MAX} bytes) or tcp:host:port"
    )


async def connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection. Raises OSError if nobody listens."""
    if address.path:
        return await asyncio.open_unix_connection(address.path, limit=_BUFFER_BYTES)
    return await asyncio.open_connection(address.host, address.port, limit=_BUFFER_BYTES)


async def listen(address: Address, serve: Serve) -> asyncio.Server:
    """Start listening; a Unix socket is readable and writable by its owner only, a stale one is replaced.

    Raises ConfigurationError if the address cannot be used.
    """
    try:
        if not address.path:
            return await asyncio.start_server(serve, address.host, address.port, limit=_BUFFER_BYTES)
        if await _answers(address):
            raise ConfigurationError(f"cannot listen at {address}: another process listens there, stop it first")
        umask = os.umask(0o177)  # the socket is born 0600, not changed to it
        try:
            return await asyncio.start_unix_server(serve, address.path, limit=_BUFFER_BYTES)
        finally:
            os.umask(umask)
    except OSError as error:
        raise ConfigurationError(f"cannot listen at {address}: {error.strerror or error}") from None


async def _answers(address: Address) -> bool:
    try:
        _, writer = await connect(address)
    except OSError:
        return False
    writer.close()
    return True
