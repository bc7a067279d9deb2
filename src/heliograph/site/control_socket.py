"""Takes orders for a running site (unseal, seal, reload) from its user or root over a Unix socket of mode 0600."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from heliograph.errors import ConfigurationError, HeliographError, TransportClosed
from heliograph.site.config import SiteConfig
from heliograph.vault.secret_input import SECRET_BYTES_MAX

__all__ = ["Orders", "give_order", "serve_control"]

# What each order does with what came with it; it returns what to say, or raises HeliographError to refuse.
Orders = Mapping[str, Callable[[bytes], Awaitable[str]]]

_ORDER_BYTES_MAX = 4 * SECRET_BYTES_MAX  # JSON and base64 around one secret
_ORDER_SECONDS = 5.0  # our choice


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    order: str
    secret: bytes = b""


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    error: str = ""
    said: str = ""


def _path(config: SiteConfig) -> Path:
    status = config.path(config.file.status)
    return status.with_name(status.name + ".ctl")


async def serve_control(config: SiteConfig, orders: Orders) -> Callable[[], None]:
    """Listen for ``orders``, one at a time. Returns what ends it. Raises ConfigurationError."""
    path, turn = _path(config), asyncio.Lock()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _caller(writer) in {os.geteuid(), 0}:
                async with asyncio.timeout(_ORDER_SECONDS):
                    line = await reader.readline()
                async with turn:
                    writer.write(msgspec.json.encode(await _carry_out(line, orders)))
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass  # the caller left, or wrote too much
        finally:
            writer.close()

    if path.exists() and not path.is_socket():
        raise ConfigurationError(f"control socket {path}: a file that is no socket stands there; move it away")
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(answer, path, limit=_ORDER_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(f"control socket {path}: {error.strerror}; name another `status`") from None
    finally:
        os.umask(before)

    def end() -> None:
        server.close()
        path.unlink(missing_ok=True)

    return end


def _caller(writer: asyncio.StreamWriter) -> int:
    """Return the user on the other end, by the system's word: unix(7), SO_PEERCRED."""
    peer = writer.get_extra_info("socket")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


async def _carry_out(line: bytes, orders: Orders) -> _Answer:
    try:
        order = msgspec.json.decode(line, type=_Order)
    except msgspec.MsgspecError:
        return _Answer("not understood")
    if order.order not in orders:
        return _Answer(
            f"this site cannot {order.order} now: it is sealed, in that state already, or has nothing to be sealed by"
        )
    try:
        said = await orders[order.order](order.secret)
    except HeliographError as why:
        return _Answer(str(why))
    return _Answer(said=said)


async def give_order(config: SiteConfig, order: str, secret: bytes = b"") -> str:
    """Order a running site; return what it says.

    Raises TransportClosed if none answers, ConfigurationError if it refuses or is not ours.
    """
    path = _path(config)
    try:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            # Whoever listens gets the secret: it must be the site's own user, who may read its key anyway, or root.
            if _caller(writer) not in {config.toml.stat().st_uid, os.geteuid(), 0}:
                raise ConfigurationError(
                    f"control socket {path}: another user listens there, nothing was sent; let `status` name a socket "
                    "in a directory that only the site's user can write"
                )
            writer.write(msgspec.json.encode(_Order(order, secret)) + b"\n")
            await writer.drain()
            answer = msgspec.json.decode(await reader.read(), type=_Answer)
        finally:
            writer.close()
    except (OSError, msgspec.MsgspecError) as error:
        told = getattr(error, "strerror", None) or error
        raise TransportClosed(
            f"no site answers at {path}: {told}; is it running? Start it, or correct `status` in its file"
        ) from None
    if answer.error:
        raise ConfigurationError(answer.error)
    return answer.said
