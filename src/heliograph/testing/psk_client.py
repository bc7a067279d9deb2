"""A plain HTTP client over TLS 1.3 under a preshared key, as an encryptor is one for SKIP."""

from __future__ import annotations

import asyncio
import json

from OpenSSL import SSL

from heliograph.openssl import AES_256_GCM_SHA384, PskConnection, Suite, psk_client

__all__ = ["Refused", "ask", "exchange", "shake_hands"]


class Refused(Exception):
    """The door ended the connection before it answered."""


async def exchange(
    port: int,
    identity: bytes,
    psk: bytes,
    data: bytes,
    suite: Suite = AES_256_GCM_SHA384,
    groups: bytes | None = None,
) -> bytes:
    """Shake hands with a door on this machine, send ``data``, return what came until the end. Raises Refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tls = psk_client(suite, identity, psk, groups)
    answer, sent = b"", False
    try:
        while True:
            try:
                if not sent:
                    tls.connection.do_handshake()
                    tls.connection.sendall(data)
                    sent = True
                answer += tls.connection.recv(16384)
            except SSL.WantReadError:
                writer.write(tls.give())
                got = await reader.read(65536)
                if not got:
                    break
                tls.take(got)
            except SSL.ZeroReturnError:
                break
    except (SSL.Error, ConnectionError) as why:
        raise Refused(str(why)) from None
    finally:
        writer.close()
    if not answer:
        raise Refused("the connection ended without an answer")
    return answer


async def shake_hands(tls: PskConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Complete a client's handshake."""
    while True:
        try:
            tls.connection.do_handshake()
        except SSL.WantReadError:
            writer.write(tls.give())
            tls.take(await reader.read(65536))
        else:
            writer.write(tls.give())
            return


async def ask(
    port: int,
    identity: bytes,
    psk: bytes,
    path: str,
    suite: Suite = AES_256_GCM_SHA384,
    groups: bytes | None = None,
) -> tuple[int, dict[str, object]]:
    """GET ``path``; return status and document. Raises Refused."""
    request = f"GET {path} HTTP/1.1\r\nHost: kme\r\nConnection: close\r\n\r\n".encode()
    head, _, body = (await exchange(port, identity, psk, request, suite, groups)).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)
