"""The doors of a site's key manager: one supply, and every way that the site file opens to it."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack

from heliograph.http.callers import CertificateCallers, UserCallers
from heliograph.http.server import KmeServer
from heliograph.http.skip_server import SkipServer
from heliograph.http.tls import skip_server_tls
from heliograph.kme.supply import Supply
from heliograph.site.boundary_entry import SiteBoundary
from heliograph.site.config import SiteConfig, parse_address
from heliograph.site.protocol_entries import SkipEntry
from heliograph.vault.randomness import SystemRandomness

__all__ = ["open_doors"]


async def open_doors(
    stack: AsyncExitStack, config: SiteConfig, supply: Supply, boundary: SiteBoundary, tls: ssl.SSLContext
) -> None:
    """Open what is declared and nothing else; ``stack`` closes it. Raises ConfigurationError."""
    rules = boundary.boundary
    if rules.certificates is None or rules.certificates:  # an empty list: no consumer comes over a network
        server = KmeServer(supply, CertificateCallers(rules), rules.networks)
        await server.start(*parse_address(config.file.kme.listen, "[kme] listen"), tls)
        stack.push_async_callback(server.close)
    if boundary.socket is not None:
        local = KmeServer(supply, UserCallers(boundary.uids, rules))
        await local.start_unix(boundary.socket)
        stack.callback(boundary.socket.unlink, missing_ok=True)
        stack.push_async_callback(local.close)
    if config.file.skip is not None:
        await _open_skip(stack, config, config.file.skip, supply, boundary)


async def _open_skip(
    stack: AsyncExitStack, config: SiteConfig, entry: SkipEntry, supply: Supply, boundary: SiteBoundary
) -> None:
    kme, path, rules = config.file.kme, config.path, boundary.boundary
    tls = skip_server_tls(path(kme.certificate), path(kme.key), path(kme.ca))
    # What /entropy gives away comes from an instance of its own, never from one that draws secrets of the link.
    server = SkipServer(supply, entry.systems(), SystemRandomness(), CertificateCallers(rules), rules.networks)
    await server.start(*parse_address(entry.listen, "[skip] listen"), tls)
    stack.push_async_callback(server.close)
