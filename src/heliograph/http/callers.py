"""Who is calling: read from the connection for every request, by certificate, key, or the system's own word."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

from heliograph.errors import NotPermitted
from heliograph.http.psk_door import PSK_IDENTITY
from heliograph.kme.boundary import Boundary, Way
from heliograph.kme.identity import sae_id_from_certificate

__all__ = [
    "Callers",
    "CertificateCallers",
    "Connected",
    "PskCallers",
    "UserCallers",
    "client_certificate",
    "may_call",
    "peer_uid",
]

_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class Connected(Protocol):
    """A request, as far as its connection tells who is calling: aiohttp's, or a ``PlainRequest``."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """Return what the transport knows."""


class Callers(Protocol):
    """Tells the SAE ID behind a connection."""

    def identify(self, request: Connected) -> str:
        """Return the caller's SAE ID. Raises NotPermitted."""


def may_call(callers: Callers, connection: Connected) -> str | None:
    """Return the SAE ID behind a connection, None for one that may not call."""
    try:
        return callers.identify(connection)
    except NotPermitted:
        return None


class CertificateCallers:
    """SAEs by their client certificates (ETSI GS QKD 014 5.1), as far as the boundary lets them come this way."""

    def __init__(self, boundary: Boundary | None = None) -> None:
        self._boundary = boundary or Boundary()

    def identify(self, request: Connected) -> str:
        """Return the certificate's SAE ID. Raises NotPermitted."""
        sae = _sae_id(client_certificate(request))
        self._boundary.check(sae, Way.CERTIFICATE)
        return sae


class UserCallers:
    """SAEs by the Unix user of the process that connected. ``users``: user ID to SAE ID."""

    def __init__(self, users: Mapping[int, str], boundary: Boundary) -> None:
        self._users = dict(users)
        self._boundary = boundary

    def identify(self, request: Connected) -> str:
        """Return the SAE ID of the user who connected. Raises NotPermitted."""
        uid = peer_uid(request.get_extra_info("socket"))
        sae = self._users.get(uid)
        if sae is None:
            raise NotPermitted(f"Unix user {uid} is no SAE of this site")
        self._boundary.check(sae, Way.USER)
        return sae


class PskCallers:
    """SAEs by the preshared key of their TLS connection. ``identities``: the key's identity to SAE ID."""

    def __init__(self, identities: Mapping[str, str], boundary: Boundary) -> None:
        self._identities = {identity.encode(): sae for identity, sae in identities.items()}
        self._boundary = boundary

    def identify(self, request: Connected) -> str:
        """Return the SAE ID behind the key. Raises NotPermitted."""
        sae = self._identities.get(request.get_extra_info(PSK_IDENTITY, b""))
        if sae is None:
            raise NotPermitted("the connection is under no preshared key of an SAE")
        self._boundary.check(sae, Way.PSK)
        return sae


def client_certificate(request: Connected) -> bytes:
    """Return the certificate, DER, that the caller showed in the handshake. Raises NotPermitted if there is none."""
    connection = request.get_extra_info("ssl_object")
    certificate = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLObject) else None
    if not certificate:
        raise NotPermitted("no client certificate was shown")
    return certificate


def peer_uid(connection: object) -> int:
    """Return the user ID of the process that connected, as the system noted it then (SO_PEERCRED, unix(7)).

    Raises NotPermitted for what is no Unix socket.
    """
    if getattr(connection, "family", None) != socket.AF_UNIX:
        raise NotPermitted("the connection is not over a Unix socket")
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)  # type: ignore[attr-defined]
    return int(_UCRED.unpack(packed)[1])


@lru_cache(maxsize=1024)
def _sae_id(certificate: bytes) -> str:
    return sae_id_from_certificate(certificate)
