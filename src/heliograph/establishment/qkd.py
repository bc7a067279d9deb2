"""QKD as a method of key establishment: its share is a key_ID, its secret comes from this site's own key manager."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from heliograph.errors import KeySupplyError, RemoteProtocolError
from heliograph.establishment.policy import QKD
from heliograph.ports import KeySource
from heliograph.types import DeliveredKey

__all__ = ["QkdEstablishment"]

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Fetched:
    share: bytes
    material: bytes = field(repr=False)

    def finish(self, answer: bytes) -> bytes:
        if answer != self.share:
            raise RemoteProtocolError("the peer answered with another key_ID of QKD")
        return self.material


class QkdEstablishment:
    """Keys of the link: authenticated block by block by the sites, named here by key_ID."""

    name = QKD

    def __init__(self, source: KeySource) -> None:
        self._source = source

    async def offer(self) -> _Fetched:
        """Fetch a fresh key as master. Raises KeySupplyError."""
        key = await self._source.get_key()
        return _Fetched(_identifier(key), _material(key))

    async def answer(self, share: bytes) -> tuple[bytes, bytes]:
        """Fetch the key that the peer named. Raises KeySupplyError."""
        if len(share) != 16:
            raise RemoteProtocolError(f"a key_ID of {len(share)} bytes, not 16")
        key = await self._source.get_key_with_id(str(uuid.UUID(bytes=share)))
        if _identifier(key) != share:
            raise KeySupplyError("the key manager answered with a key of another key_ID")
        return _material(key), share


def _identifier(key: DeliveredKey) -> bytes:
    try:
        return uuid.UUID(key.key_id).bytes
    except ValueError as why:
        raise KeySupplyError(f"key_ID {key.key_id!r} is not a UUID (ETSI GS QKD 014): check the key manager") from why


def _material(key: DeliveredKey) -> bytes:
    if len(key.material) != _KEY_BYTES:
        raise KeySupplyError(
            f"key {key.key_id} has {8 * len(key.material)} bits, the combiner needs {8 * _KEY_BYTES}: "
            "set the key size of this pair of SAEs at the key manager"
        )
    return key.material
