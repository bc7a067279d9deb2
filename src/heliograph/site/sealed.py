"""A site that is sealed: it holds no key, its KME answers 503, and it waits for the passphrase or PIN."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from heliograph.errors import SiteSealed
from heliograph.http.callers import CertificateCallers, UserCallers
from heliograph.http.sealed import SealedKmeServer
from heliograph.http.tls import server_tls
from heliograph.ports import Vault
from heliograph.site.config import SiteConfig, parse_address
from heliograph.site.control_socket import serve_control
from heliograph.site.kek import open_kek_with
from heliograph.site.status_socket import serve_status
from heliograph.status import SiteStatus

__all__ = ["wait_for_unseal"]


async def wait_for_unseal(
    config: SiteConfig, ready: Callable[[], Awaitable[None]], stop: asyncio.Event
) -> Vault | None:
    """Return the key-encryption key once somebody brings what opens it, None if ``stop`` came first.

    A wrong passphrase is refused to who brought it and changes nothing. SKIP, ETSI 004 and ETSI 020 are not opened.
    Raises ConfigurationError if the doors cannot be opened.
    """
    opened: asyncio.Future[Vault] = asyncio.get_running_loop().create_future()

    async def unseal(secret: bytes) -> str:
        kek = await asyncio.to_thread(open_kek_with, config, secret)  # Argon2id takes most of a second
        if not opened.done():
            opened.set_result(kek)
        return ""

    async def status() -> SiteStatus:
        raise SiteSealed("it is sealed; run `heliograph site unseal`")

    async with AsyncExitStack() as stack:
        kme, path, boundary = config.file.kme, config.path, config.boundary()
        rules = boundary.boundary
        # With a delivery server its front ends are at that door.
        if config.file.delivery is None and (rules.certificates is None or rules.certificates):
            door = SealedKmeServer(CertificateCallers(rules), rules.networks)
            tls = server_tls(path(kme.certificate), path(kme.key), path(kme.ca))
            await door.start(*parse_address(kme.listen, "[kme] listen"), tls)
            stack.push_async_callback(door.close)
        if boundary.socket is not None:
            local = SealedKmeServer(UserCallers(boundary.uids, rules))
            await local.start_unix(boundary.socket)
            stack.callback(boundary.socket.unlink, missing_ok=True)
            stack.push_async_callback(local.close)
        server = await serve_status(path(config.file.status), status)
        stack.callback(path(config.file.status).unlink, missing_ok=True)
        stack.callback(server.close)
        stack.callback(await serve_control(config, {"unseal": unseal}))
        await ready()
        waiting = asyncio.create_task(stop.wait())
        either: list[asyncio.Future[Any]] = [opened, waiting]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    return opened.result() if opened.done() else None
