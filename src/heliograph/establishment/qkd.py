"""QKD as a method of key establishment: its share is a key_ID, its secret comes from this site's own key manager.

A one-time pad takes many keys: the share is then their key_IDs, the secret their bytes as they are, put in the order
confirmation key | first half of each further key | second half of each. The initiator sends under the first halves, the
responder under the second, so no order in which a forger could name the keys makes both send under the same bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from heliograph.errors import KeySupplyError, RemoteProtocolError
from heliograph.establishment.policy import QKD
from heliograph.ports import KeySource
from heliograph.types import DeliveredKey

__all__ = ["ManyKeys", "QkdEstablishment", "QkdPad"]

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


class ManyKeys(Protocol):
    """Where the keys of a pad come from, all or none. Each method raises KeySupplyError."""

    async def get_keys(self, number: int) -> list[DeliveredKey]:
        """Fetch fresh keys as master."""

    async def get_keys_with_ids(self, key_ids: Sequence[str]) -> list[DeliveredKey]:
        """Fetch the keys that the peer named, in that order."""


class QkdPad:
    """A pad of ``number`` keys of the link. A fetch that fails half-way has burnt what it had: it is never used."""

    name = QKD

    def __init__(self, source: ManyKeys, number: int) -> None:
        self._source = source
        self._number = number
        self._seen: set[bytes] = set()

    def _refuse_known(self, names: list[bytes]) -> None:
        """Raise KeySupplyError for a key_ID that was in a pad before: a key manager that repeats itself."""
        if len(set(names)) != len(names) or not self._seen.isdisjoint(names):
            raise KeySupplyError("the key manager gave a key a second time: no pad is made of it")
        self._seen.update(names)

    async def offer(self) -> _Fetched:
        """Fetch fresh keys as master. Raises KeySupplyError."""
        keys = await self._source.get_keys(self._number)
        self._refuse_known([_identifier(key) for key in keys])
        return _Fetched(b"".join(map(_identifier, keys)), _pad(keys))

    async def answer(self, share: bytes) -> tuple[bytes, bytes]:
        """Fetch the keys that the peer named. Raises KeySupplyError, RemoteProtocolError."""
        names = [share[at : at + 16] for at in range(0, len(share), 16)]
        if len(share) != 16 * self._number or len(set(names)) != self._number:
            raise RemoteProtocolError(
                f"a pad of {len(share) / 16:g} keys is offered, this site's have {self._number}: set the same pad_keys"
            )
        keys = await self._source.get_keys_with_ids([str(uuid.UUID(bytes=name)) for name in names])
        if [_identifier(key) for key in keys] != names:
            raise KeySupplyError("the key manager answered with a key of another key_ID")
        self._refuse_known(names)
        return _pad(keys), share


def _pad(keys: list[DeliveredKey]) -> bytes:
    size = len(keys[0].material)
    if size < _KEY_BYTES or size % 2 or any(len(key.material) != size for key in keys):
        raise KeySupplyError("the keys of a pad must have one even size of at least 32 bytes")
    halves = [(key.material[: size // 2], key.material[size // 2 :]) for key in keys[1:]]
    return b"".join([keys[0].material[:_KEY_BYTES], *(a for a, _ in halves), *(b for _, b in halves)])


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
