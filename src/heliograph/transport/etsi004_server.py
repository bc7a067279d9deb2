"""The KME's door for applications that speak ETSI GS QKD 004: its de-facto wire over TCP with mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from heliograph.errors import ConfigurationError, HeliographError, NotPermitted, RemoteProtocolError
from heliograph.kme.boundary import Boundary, Network, Way
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

# Our choices.
HANDSHAKE_S = 5.0
IDLE_S = 600.0
CONNECTIONS_MAX = 256

_log = logging.getLogger("heliograph.kme")


class Etsi004Server:
    """``handle``: answers one call of the SAE whose certificate was shown. A malformed request ends the connection."""

    what: ClassVar[str] = "ETSI 004"

    def __init__(
        self,
        handle: Callable[[str, Request], Awaitable[Reply]],
        boundary: Boundary,
        networks: Sequence[Network] = (),
    ) -> None:
        self._handle = handle
        self._boundary = boundary
        self._networks = tuple(networks)
        self.servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def port(self) -> int:
        """The port it listens on."""
        if not self.servers:
            raise ConfigurationError("ETSI 004 is not listening")
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Listen. Raises ConfigurationError."""
        try:
            listening = await asyncio.start_server(self._accept, host, port, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S)
        except OSError as error:
            raise ConfigurationError(
                f"ETSI 004 address {host}:{port}: {error.strerror or error}; free the port or name another"
            ) from None
        self.servers = [listening]

    async def listen_again(self, raw: socket.socket, tls: ssl.SSLContext) -> asyncio.Server:
        """Return a server at a socket that listens already; it takes no connection yet. Raises OSError."""
        return await asyncio.start_server(
            self._accept, sock=raw, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S, start_serving=False
        )

    def admit(self, boundary: Boundary, networks: Sequence[Network], serves: Callable[[str], bool]) -> None:
        """Let these in from now on and nobody else; a connection of somebody else ends at once.

        ``serves``: whether an SAE is registered at this key manager.
        """
        self._boundary, self._networks = boundary, tuple(networks)
        for task, writer in list(self._connections.items()):
            try:
                stays = serves(self._identify(writer))
            except NotPermitted as why:
                _log.info("ETSI 004 connection closed: %s", why)
                stays = False
            if not stays:
                writer.transport.abort()
                task.cancel()

    async def close(self) -> None:
        """Stop listening and end every connection."""
        for server in self.servers:
            server.close()
        self.servers = []
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            caller = self._identify(writer)
            while len(self._connections) <= CONNECTIONS_MAX:
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

    def _identify(self, writer: asyncio.StreamWriter) -> str:
        if self._networks:
            address = ipaddress.ip_address(str(writer.get_extra_info("peername")[0]).partition("%")[0])
            if not any(address in network for network in self._networks):
                raise NotPermitted("from outside the declared networks")
        connection = writer.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True) if connection is not None else None
        if not certificate:
            raise NotPermitted("no client certificate was shown")
        sae = sae_id_from_certificate(certificate)
        self._boundary.check(sae, Way.CERTIFICATE)
        return sae
