"""The two ordinary hosts: one behind site A that sends a payload, one behind site B that receives it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field

from heliograph.errors import TransportClosed

__all__ = ["HostB", "send"]

_CHUNK = 1 << 16
_TRICKLES = 16  # a paced payload goes in at least so many pieces, if it has so many bytes


@dataclass
class HostB:
    """Takes whole payloads and answers each with the SHA-256 of what arrived."""

    received: list[tuple[int, str]] = field(default_factory=list)
    first_byte: asyncio.Event = field(default_factory=asyncio.Event)
    progress: int = 0
    _server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._take, host, port)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest, size = hashlib.sha256(), 0
        try:
            while data := await reader.read(_CHUNK):
                self.first_byte.set()
                digest.update(data)
                size += len(data)
                self.progress += len(data)
            writer.write(digest.hexdigest().encode())
            await writer.drain()
            self.received.append((size, digest.hexdigest()))
        except OSError:
            pass  # cut on the way: nothing counts as received
        finally:
            writer.close()

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()


async def send(host: str, port: int, payload: bytes, bytes_per_s: float | None = None) -> str:
    """Send the payload from behind site A; return what host B says it received. Raises TransportClosed.

    ``bytes_per_s`` paces it; without it, the payload goes as fast as the tunnel takes it.
    """
    began = time.monotonic()
    chunk = _CHUNK if bytes_per_s is None else min(_CHUNK, max(1, len(payload) // _TRICKLES))
    try:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            for start in range(0, len(payload), chunk):
                writer.write(payload[start : start + chunk])
                await writer.drain()
                if bytes_per_s is not None:
                    await asyncio.sleep(began + (start + chunk) / bytes_per_s - time.monotonic())
            writer.write_eof()
            return (await reader.read()).decode("ascii", "replace")
        finally:
            writer.close()
    except OSError as error:
        raise TransportClosed(f"the tunnel closed under the payload: {error}") from None
