"""The links of a node: each is an SAE's view of a key manager beside it, whoever made the keys.

A link of Heliograph is a `heliograph site` on the same machine, with a store, a registration and pads of its own; a
vendor's is a device that speaks ETSI GS QKD 014. The node takes keys as master to send and by key_ID to receive; either
way they are gone at the key manager before the node has them, and the node keeps none of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from heliograph.errors import AuthenticationFailed, ConfigurationError, KeySupplyError
from heliograph.http.client import Etsi014Client
from heliograph.kme.one_time import ATTEMPTS_MAX, OneTimeKeys, SealedRequest
from heliograph.network.hop import KEY_BYTES_MIN
from heliograph.network.stocks import VENDOR
from heliograph.types import DeliveredKey, StoredKey

__all__ = ["Link"]

_UNPROVED_MAX: Final = 64  # our choice


@dataclass
class _Unproved:
    """Keys that a message named whose tag was wrong; they wait, in memory only, for the message that is right."""

    keys: OneTimeKeys = field(repr=False)
    attempts: int = 0


class Link:
    """``name``: of both nodes; ``sae`` and ``peer_sae``: what the two nodes are to the link's key managers.

    ``assurance``: demanded of every key that is drawn, or ``VENDOR``, which demands and promises nothing.
    """

    def __init__(self, name: str, peer: str, client: Etsi014Client, saes: tuple[str, str], assurance: str) -> None:
        self.name: Final = name
        self.peer: Final = peer
        self.sae, self.peer_sae = saes
        self.assurance: Final = assurance
        self.key_bytes = 0
        self.stock = -1
        self._client = client
        self._unproved: OrderedDict[tuple[str, str], _Unproved] = OrderedDict()
        self._fetching: dict[tuple[str, str], asyncio.Task[_Unproved]] = {}

    async def look(self) -> int:
        """Ask how many keys could be drawn. Raises KeySupplyError, ConfigurationError for keys that are too short."""
        status = await self._client.status()
        if status.key_size_bits < 8 * KEY_BYTES_MIN:
            raise ConfigurationError(f"link {self.name}: keys of {status.key_size_bits} bits; 256 or more are needed")
        self.key_bytes, self.stock = status.key_size_bits // 8, status.stored_key_count
        return self.stock

    async def draw(self, number: int) -> list[StoredKey]:
        """Take ``number`` fresh keys as master. Raises KeySupplyError; then none was taken."""
        wish = {} if self.assurance == VENDOR else {"heliograph_assurance": self.assurance}
        found = await self._client.get_keys(number, wish)
        self.stock = max(0, self.stock - number)
        return [self._stored(key, self.sae, self.peer_sae) for key in found]

    async def take(self, request: SealedRequest) -> tuple[OneTimeKeys, bytes]:
        """Take a request's two keys and return them with its body, once the tag is right.

        Attempts on a pair of keys are counted before the tag is compared, as long as the keys exist: both are in
        memory only, and neither outlives the process. Raises AuthenticationFailed, KeySupplyError.
        """
        waiting = self._unproved.get(request.key_ids) or await self._fetched(request.key_ids)
        waiting.attempts += 1
        if waiting.attempts > ATTEMPTS_MAX:
            raise AuthenticationFailed("too many messages were tried under one of these keys")
        body = waiting.keys.open(request)
        # Two requests under one pair of keys may have waited at once: only the first is acted on.
        if self._unproved.pop(request.key_ids, None) is not waiting:
            raise AuthenticationFailed("a message that came twice")
        return waiting.keys, body

    async def _fetched(self, key_ids: tuple[str, str]) -> _Unproved:
        # Whoever else names the same keys meanwhile waits for the same answer: the true message and a forged copy of
        # it may come at once, and the key manager gives the keys once.
        task = self._fetching.get(key_ids)
        if task is None:
            task = self._fetching[key_ids] = asyncio.create_task(self._fetch(key_ids))
            task.add_done_callback(lambda task: self._fetch_ended(key_ids, task))
        return await asyncio.shield(task)

    def _fetch_ended(self, key_ids: tuple[str, str], task: asyncio.Task[_Unproved]) -> None:
        self._fetching.pop(key_ids, None)
        if not task.cancelled():
            task.exception()  # seen: who waited may have hung up before a silent key manager was given up

    async def _fetch(self, key_ids: tuple[str, str]) -> _Unproved:
        first, second = await self.take_named(key_ids)
        waiting = self._unproved[key_ids] = _Unproved(OneTimeKeys(first, second))
        while len(self._unproved) > _UNPROVED_MAX:
            self._unproved.popitem(last=False)
        return waiting

    async def take_named(self, key_ids: tuple[str, ...]) -> list[StoredKey]:
        """Take the keys that the peer named, all or none. Raises KeySupplyError."""
        found = await self._client.get_keys_with_ids(key_ids) if key_ids else []
        return [self._stored(key, self.peer_sae, self.sae) for key in found]

    def renew(self, tls: ssl.SSLContext) -> None:
        """Use ``tls`` for every connection to the key manager from now on."""
        self._client.renew(tls)

    async def close(self) -> None:
        """Close the connection to the key manager."""
        for task in self._fetching.values():
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)
        self._unproved.clear()
        await self._client.close()

    @staticmethod
    def _stored(key: DeliveredKey, master: str, slave: str) -> StoredKey:
        if len(key.material) < KEY_BYTES_MIN:
            raise KeySupplyError(f"a key of {8 * len(key.material)} bits; relay needs 256 or more")
        return StoredKey(key.key_id, master, slave, key.material)
