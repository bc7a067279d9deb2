"""A consumer of keys in a few lines: status, fresh keys as master, named keys as slave (ETSI GS QKD 014).

    with Sae.over_tls("https://192.0.2.1:8443", "sae-b", certificate="sae.pem", key="sae.key", ca="ca.pem") as sae:
        (key,) = sae.get()

``AsyncSae`` is the same for asyncio. A key is delivered once: one whose answer was lost is burnt, fetch another. Every
method raises KeySupplyError: InsufficientKeys, KeyNotFound and NotPermitted are kinds of it; one line says what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from heliograph.errors import ConfigurationError
from heliograph.http.client import Etsi014Client
from heliograph.http.credential import check_credential
from heliograph.http.tls import client_tls
from heliograph.kme.supply import SupplyStatus
from heliograph.types import DeliveredKey

__all__ = ["AsyncSae", "Sae"]

_Result = TypeVar("_Result")


class AsyncSae:
    """One SAE's view of its own site's KME, for one SAE at another site. ``async with``, or ``close`` it."""

    def __init__(self, client: Etsi014Client, sae_id: str | None = None) -> None:
        """Take a client. ``over_tls`` and ``over_socket`` make one."""
        self._client = client
        self.sae_id = sae_id

    @classmethod
    def over_tls(
        cls,
        url: str,
        peer: str,
        *,
        certificate: str | Path | None,
        key: str | Path | None,
        ca: str | Path,
        kme: str | None = None,
        size_bits: int | None = None,
    ) -> Self:
        """Return an SAE that dials ``https://host[:port]``; nothing is sent before a method is called.

        ``certificate``, ``key``, ``ca``: PEM files, the key mode 0600; ``kme``: the ID that the KME's certificate must
        have, any of that CA if None; ``size_bits``: of every key, the KME's own size if None. Raises ConfigurationError
        for files that cannot work: missing, encrypted, others', expired, for a server, not a pair.
        """
        if certificate is None or key is None:
            raise ConfigurationError(
                "a client certificate is missing: give the SAE's certificate and key, by which the KME knows who asks"
            )
        tls = client_tls(certificate, key, ca, kme)
        sae_id = check_credential(certificate, ca)
        return cls(Etsi014Client(url, tls, sae_id, peer, size_bits=size_bits), sae_id)

    @classmethod
    def over_socket(cls, path: str | Path, peer: str, *, size_bits: int | None = None) -> Self:
        """Return an SAE that the KME on this host knows by its Unix user ([boundary] in SITE.toml)."""
        return cls(Etsi014Client.over_socket(path, None, peer, size_bits=size_bits))

    async def status(self) -> SupplyStatus:
        """Ask how many keys are stored for the pair, and what the KME serves."""
        return await self._client.status()

    async def get(self, number: int = 1) -> list[DeliveredKey]:
        """Fetch ``number`` fresh keys as master; tell their key_IDs, which are not secret, to the peer."""
        return await self._client.get_keys(number)

    async def get_with_ids(self, key_ids: Sequence[str]) -> list[DeliveredKey]:
        """Fetch, as slave, the keys that the peer named, in that order; all or none."""
        return await self._client.get_keys_with_ids(key_ids)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Sae:
    """``AsyncSae`` as plain calls, for one thread that runs no event loop. ``with``, or ``close`` it."""

    def __init__(self, sae: AsyncSae) -> None:
        """Take an AsyncSae that nobody else uses. ``over_tls`` and ``over_socket`` make one."""
        self._sae = sae
        self._runner = asyncio.Runner()

    @classmethod
    def over_tls(
        cls,
        url: str,
        peer: str,
        *,
        certificate: str | Path | None,
        key: str | Path | None,
        ca: str | Path,
        kme: str | None = None,
        size_bits: int | None = None,
    ) -> Self:
        """Return an SAE as ``AsyncSae.over_tls`` does."""
        return cls(AsyncSae.over_tls(url, peer, certificate=certificate, key=key, ca=ca, kme=kme, size_bits=size_bits))

    @classmethod
    def over_socket(cls, path: str | Path, peer: str, *, size_bits: int | None = None) -> Self:
        """Return an SAE as ``AsyncSae.over_socket`` does."""
        return cls(AsyncSae.over_socket(path, peer, size_bits=size_bits))

    @property
    def sae_id(self) -> str | None:
        """The SAE ID in the certificate; None over a socket."""
        return self._sae.sae_id

    def status(self) -> SupplyStatus:
        """Ask how many keys are stored for the pair, and what the KME serves."""
        return self._run(self._sae.status())

    def get(self, number: int = 1) -> list[DeliveredKey]:
        """Fetch ``number`` fresh keys as master."""
        return self._run(self._sae.get(number))

    def get_with_ids(self, key_ids: Sequence[str]) -> list[DeliveredKey]:
        """Fetch, as slave, the keys that the peer named, in that order; all or none."""
        return self._run(self._sae.get_with_ids(key_ids))

    def close(self) -> None:
        """Close the connections."""
        self._run(self._sae.close())
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return self._runner.run(work)
