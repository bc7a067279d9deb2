"""The KME's door for applications that speak ETSI GS QKD 004: its de-facto wire over TCP with mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from heliograph.doors.door import Door, TlsHandshake
from heliograph.doors.sources import Sources
from heliograph.errors import ConfigurationError, HeliographError, NotPermitted, RemoteProtocolError
from heliograph.kme.boundary import Boundary, Network, Way, is_inside
from heliograph.kme.etsi004 import (
    HEADER_BYTES,
    REQUEST_BYTES_MAX,
    Close,
    Reply,
    Request,
    encode,
    payload_length,
    read_request,
)
from heliograph.kme.identity import sae_id_from_certificate

__all__ = ["Etsi004Server"]

IDLE_S = 600.0  # our choice

_log = logging.getLogger("heliograph.kme")


class Etsi004Server:
    """``handle``: answers one call of the SAE whose certificate was shown. A malformed request ends the connection.

    ``serves``: whether an SAE is registered at this key manager.
    """

    what: ClassVar[str] = "ETSI 004"

    def __init__(
        self,
        handle: Callable[[str, Request], Awaitable[Reply]],
        boundary: Boundary,
        networks: Sequence[Network] = (),
        serves: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._handle = handle
        self._boundary = boundary
        self._networks = tuple(networks)
        self._serves = serves
        self._door: Door | None = None
        self._tls: TlsHandshake | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._door is None:
            raise ConfigurationError("ETSI 004 is not listening")
        return self._door.port

    async def start(self, host: str, port: int, tls: ssl.SSLContext, sources: Sources | None = None) -> None:
        """Listen. ``sources``: what a process's doors know of where callers come from. Raises ConfigurationError."""
        self._tls = TlsHandshake(tls)
        door = Door(self._tls, self._make, self._caller_of, self._welcomes, sources)
        try:
            await door.listen(host, port)
        except OSError as error:
            raise ConfigurationError(
                f"ETSI 004 address {host}:{port}: {error.strerror or error}; free the port or name another"
            ) from None
        self._door = door

    def renew(self, tls: ssl.SSLContext) -> None:
        """Shake hands under another context from now on; established connections go on."""
        if self._tls is not None:
            self._tls.tls = tls

    def _make(self) -> asyncio.StreamReaderProtocol:
        loop = asyncio.get_running_loop()
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), self._accept, loop=loop)

    def _welcomes(self, address: str) -> bool:
        return not self._networks or is_inside(address, self._networks)

    def _caller_of(self, transport: asyncio.BaseTransport) -> str:
        try:
            sae = self._identify(transport)
        except NotPermitted:
            return ""
        return sae if self._serves(sae) else ""

    def admit(self, boundary: Boundary, networks: Sequence[Network], serves: Callable[[str], bool]) -> None:
        """Let these in from now on and nobody else; a connection of somebody else ends at once.

        ``serves``: whether an SAE is registered at this key manager.
        """
        self._boundary, self._networks = boundary, tuple(networks)
        self._serves = serves
        for task, writer in list(self._connections.items()):
            try:
                stays = serves(self._identify(writer.transport))
            except NotPermitted as why:
                _log.info("ETSI 004 connection closed: %s", why)
                stays = False
            if not stays:
                writer.transport.abort()
                task.cancel()

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._door is not None:
            door, self._door = self._door, None
            await door.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            caller = self._identify(writer.transport)
            while True:
                async with asyncio.timeout(IDLE_S):
                    header = await reader.readexactly(HEADER_BYTES)
                    request = read_request(header, await reader.readexactly(payload_length(header, REQUEST_BYTES_MAX)))
                reply = await self._handle(caller, request)
                writer.write(encode(reply, text=not isinstance(request, Close) and request.text))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass  # the application left
        except (NotPermitted, RemoteProtocolError) as why:
            _log.info("ETSI 004 connection closed: %s", why)
        except HeliographError as why:
            _log.error("ETSI 004 call failed: %s", why)
        except asyncio.CancelledError:
            pass  # the server closes
        except Exception as why:  # noqa: BLE001  - no traceback with keys in its locals may reach a log
            _log.error("ETSI 004 call failed: %s", type(why).__name__)
        finally:
            self._connections.pop(task, None)
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    def _identify(self, transport: asyncio.BaseTransport) -> str:
        if self._networks:
            name = transport.get_extra_info("peername")
            if not name or not self._welcomes(str(name[0])):
                raise NotPermitted("from outside the declared networks")
        connection = transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True) if connection is not None else None
        if not certificate:
            raise NotPermitted("no client certificate was shown")
        sae = sae_id_from_certificate(certificate)
        self._boundary.check(sae, Way.CERTIFICATE)
        return sae
