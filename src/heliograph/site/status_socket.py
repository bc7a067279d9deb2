"""Tells a site's status to whoever may open its socket: one JSON document for each connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from heliograph.errors import ConfigurationError, HeliographError, TransportClosed
from heliograph.status import SiteStatus

__all__ = ["read_document", "read_status", "serve_status"]


async def serve_status(path: Path, status: Callable[[], Awaitable[msgspec.Struct]]) -> asyncio.Server:
    """Listen on a socket of mode 0600. Raises ConfigurationError if it cannot be made."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                document = msgspec.json.encode(await status())
            except HeliographError as why:
                document = msgspec.json.encode({"error": str(why)})
            writer.write(document)
            await writer.drain()
        except OSError:
            pass  # the reader left
        finally:
            writer.close()

    try:
        if path.exists() and not path.is_socket():  # noqa: ASYNC240  - one look, before anything runs
            raise ConfigurationError(f"status socket {path}: a file that is no socket stands there; name another path")
        path.unlink(missing_ok=True)  # noqa: ASYNC240  - the same
        before = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(answer, path)
        finally:
            os.umask(before)
    except OSError as error:
        raise ConfigurationError(f"status socket {path}: {error.strerror}; name a path this user can write") from None


async def read_status(path: Path) -> SiteStatus:
    """Ask a running site. Raises TransportClosed if it does not answer."""
    try:
        return msgspec.json.decode(await read_document(path), type=SiteStatus)
    except msgspec.MsgspecError as error:
        raise TransportClosed(
            f"no site answers at {path}: {error}; is it running? Start it, or correct `status` in its file"
        ) from None


async def read_document(path: Path) -> bytes:
    """Return the status that a socket gives, as JSON. Raises TransportClosed."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            data = await reader.read()
        finally:
            writer.close()
    except OSError as error:
        raise TransportClosed(
            f"no site answers at {path}: {error.strerror}; is it running? Start it, or correct `status` in its file"
        ) from None
    if data.startswith(b'{"error":'):
        raise TransportClosed(f"the site at {path} has no status: {msgspec.json.decode(data)['error']}")
    return data
