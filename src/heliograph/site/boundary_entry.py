"""The site file's [boundary]: which consumers fetch keys by which way (docs/how-to/boundary.md).

[boundary]
certificates = ["sae-a"]               # over mutual TLS; left out: every SAE that has no other way
networks = ["192.0.2.0/24"]            # from these addresses only; left out: from anywhere
socket = "run/kme.sock"                # the same API on a Unix socket
users = { encryptor = "sae-b" }        # by Unix user (name or number), on the socket
in_process = ["sae-c"]                 # in the site's own process: the built-in encryptor
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.kme.boundary import Boundary, read_network

__all__ = ["SOCKET_PATH_BYTES_MAX", "BoundaryEntry", "SiteBoundary"]

SOCKET_PATH_BYTES_MAX = 100  # sun_path of unix(7) is 108 bytes


class BoundaryEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The entry as it is written."""

    certificates: list[str] | None = None
    networks: list[str] = []
    socket: str | None = None
    users: dict[str, str] = {}
    in_process: list[str] = []


@dataclass(frozen=True, slots=True)
class SiteBoundary:
    """The boundary as this machine knows it. ``uids``: user ID to SAE ID; ``socket``: where they connect, if any."""

    boundary: Boundary
    uids: dict[int, str]
    socket: Path | None

    @classmethod
    def read(
        cls, entry: BoundaryEntry | None, directory: Path, saes: Collection[str], psk: Collection[str] = ()
    ) -> SiteBoundary:
        """Check the entry against this site's ``saes`` and this machine's users. Raises ConfigurationError.

        ``psk``: the SAEs that another entry gives a preshared key; they have no other way then.
        """
        if entry is None:
            only = Boundary(psk=frozenset(psk))
            only.check_known(saes)
            return cls(only, {}, None)
        if bool(entry.users) != (entry.socket is not None):
            raise ConfigurationError("[boundary] socket and users go together: give both or neither")
        for name, listed in (("certificates", entry.certificates or []), ("in_process", entry.in_process)):
            if len(set(listed)) != len(listed):
                raise ConfigurationError(f"[boundary] {name}: an SAE comes twice; list it once")
        boundary = Boundary(
            certificates=None if entry.certificates is None else frozenset(entry.certificates),
            networks=tuple(read_network(text) for text in entry.networks),
            users=dict(entry.users),
            in_process=frozenset(entry.in_process),
            psk=frozenset(psk),
        )
        boundary.check_known(saes)
        uids = {_uid(user): sae for user, sae in entry.users.items()}
        if len(uids) != len(entry.users):
            raise ConfigurationError("[boundary] users: two entries are the same Unix user; keep one")
        socket = None if entry.socket is None else (directory / entry.socket).absolute()
        if socket is not None and len(os.fsencode(socket)) > SOCKET_PATH_BYTES_MAX:
            raise ConfigurationError(f"[boundary] socket = {entry.socket!r}: the path is too long for a Unix socket")
        return cls(boundary, uids, socket)


def _uid(user: str) -> int:
    if user.isascii() and user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        raise ConfigurationError(f"[boundary] users: this machine has no user {user!r}; make it or correct") from None
