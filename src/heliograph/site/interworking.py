"""Keeps the promises made to other key managers: offers, acknowledgements and voids go out until they are answered."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from heliograph.errors import HeliographError
from heliograph.http.etsi020_client import Etsi020Client
from heliograph.kme import etsi020
from heliograph.kme.etsi020_records import Ack, Extension, ExtKey, ExtKeys, InterworkingError, Void
from heliograph.kme.foreign_groups import ForeignGroup
from heliograph.kme.interworking import read_offer_answer, read_void_answer
from heliograph.kme.supply import Supply
from heliograph.ports import Clock, RandomSource
from heliograph.storage.foreign_keys import ForeignKeys
from heliograph.storage.foreign_legs import Outgoing

__all__ = ["ForeignPair", "InterworkingRunner"]

# Our choices.
TICK_S = 1.0
PATIENCE_S = 120.0  # an offer that is not relayed by then is voided
BATCH = 64

log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ForeignPair:
    """An SAE here and one behind another key manager; ``stock`` keys are kept ready for the one here as master."""

    peer: str
    local_sae: str
    foreign_sae: str
    stock: int

    @property
    def group(self) -> ForeignGroup:
        """The pair as a group of one slave."""
        return ForeignGroup(self.local_sae, (self.foreign_sae,), {self.foreign_sae: self.peer}, self.stock)


class InterworkingRunner:
    """``urls`` and ``clients``: by the peer's KME ID; ``callback``: where this site's own acknowledgements arrive.

    ``groups``: of SAEs at several key managers; ``said``: extensions that go with each key that is drawn here.

    Outgoing keys are drawn from ``randomness`` at this site: inside the protected site they are as good as any, and
    what they rest on is its ``kind``. What carries them further is the other key manager's network.
    Calls of the store run on a thread of their own: a slow disk holds nothing else up, least of all a link.
    """

    def __init__(
        self,
        store: ForeignKeys,
        supply: Supply,
        urls: Mapping[str, str],
        clients: Mapping[str, Etsi020Client],
        callback: str,
        pairs: tuple[ForeignPair, ...],
        randomness: RandomSource,
        clock: Clock,
        groups: tuple[ForeignGroup, ...] = (),
        said: Extension | None = None,
    ) -> None:
        self._store, self._supply = store, supply
        self._urls, self._clients, self._callback = urls, clients, callback
        self._groups, self._said = _stocked(pairs, groups), said
        self._randomness, self._clock = randomness, clock
        self._thread = ThreadPoolExecutor(1, "interworking")

    async def _in_store(self, call: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def declare(
        self,
        urls: Mapping[str, str],
        clients: Mapping[str, Etsi020Client],
        pairs: tuple[ForeignPair, ...],
        groups: tuple[ForeignGroup, ...] = (),
        said: Extension | None = None,
    ) -> None:
        """Deal with these peers from now on. What is owed to another one waits, should it be declared again."""
        self._urls, self._clients = urls, clients
        self._groups, self._said = _stocked(pairs, groups), said

    async def run(self) -> None:
        """Do what is due, again and again; a store or a peer that fails is tried again."""
        while True:
            try:
                await self.tick()
            except HeliographError as why:
                log.warning("interworking put off", reason=str(why))
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Do what is due once. Raises StoreUnavailable."""
        now = self._clock.now()
        for group in self._groups:
            await self._in_store(partial(self._top_up, group, now))
        if given_up := await self._in_store(lambda: self._store.give_up(now - PATIENCE_S, now)):
            log.warning("keys were not relayed in time and are voided", keys=given_up)
        for callback, ack in await self._in_store(lambda: self._store.owed(now, BATCH)):
            await self._acknowledge(callback, ack, now)
        for outgoing in await self._in_store(lambda: self._store.to_offer(now, BATCH)):
            await self._offer(outgoing, now)
        for outgoing in await self._in_store(lambda: self._store.to_void(now, BATCH)):
            await self._void(outgoing, now)

    def _top_up(self, group: ForeignGroup, now: float) -> None:
        stored = self._supply.stored(group.master, group.audience)
        lacking = group.stock - stored - self._store.under_way(group.master, group.audience)
        if lacking > 0:
            size = self._supply.key_sizes(group.master, group.audience)[0] // 8
            keys = [
                ExtKey(self._fresh_id(), self._randomness.draw(size), self._said) for _ in range(min(lacking, BATCH))
            ]
            # Remembered first: a key that may have been seen elsewhere is never forgotten here.
            self._store.offer(group.master, group.audience, group.way.legs, keys, now)

    def _fresh_id(self) -> str:
        return str(uuid.UUID(bytes=self._randomness.draw(16), version=4))

    async def _offer(self, outgoing: Outgoing, now: float) -> None:
        request = ExtKeys(outgoing.keys, outgoing.initiator, outgoing.targets, self._callback, outgoing.optional)
        status, body = await self._post(outgoing.peer, "/kmapi/v1/ext_keys", etsi020.ext_keys_document(request))
        answer = read_offer_answer(status, body)
        if answer is False:
            log.warning("offered keys refused and destroyed", peer=outgoing.peer, status=status)
            await self._in_store(lambda: self._store.not_taken(outgoing.peer, outgoing.key_ids, now))
        elif answer is True:
            # No proof either way, or 202: the same keys again later, until an acknowledgement or the void.
            if status == 202:
                await self._in_store(lambda: self._store.assigned(outgoing.peer, outgoing.key_ids))
            await self._in_store(lambda: self._store.retry_later(outgoing.peer, outgoing.key_ids, now))
        else:
            await self._take(outgoing, answer, now)

    async def _void(self, outgoing: Outgoing, now: float) -> None:
        request = Void(outgoing.key_ids, outgoing.initiator, outgoing.targets, self._callback)
        status, body = await self._post(outgoing.peer, "/kmapi/v1/ext_keys/void", etsi020.void_document(request))
        answer = read_void_answer(status, body)
        await self._in_store(lambda: self._store.retry_later(outgoing.peer, outgoing.key_ids, now))
        if isinstance(answer, list):
            await self._take(outgoing, answer, now)

    async def _take(self, outgoing: Outgoing, acks: list[Ack], now: float) -> None:
        try:
            await self._in_store(lambda: self._store.acknowledged(outgoing.peer, acks, now))
        except InterworkingError as why:
            log.warning("answer of another key manager refused", peer=outgoing.peer, reason=str(why))
            await self._in_store(lambda: self._store.retry_later(outgoing.peer, outgoing.key_ids, now))

    async def _acknowledge(self, callback: str, ack: Ack, now: float) -> None:
        peer = next((kme for kme, url in self._urls.items() if callback.startswith(f"{url}/")), None)
        status = None
        if peer is not None:  # else: a peer that is not declared any more
            status, _ = await self._clients[peer].post(callback, etsi020.acks_document([ack]))
        if status == 200:
            await self._in_store(lambda: self._store.answered(ack.key_ids, ack.status))
        else:
            await self._in_store(lambda: self._store.put_off(ack.key_ids, now))

    async def _post(self, peer: str, path: str, body: bytes) -> tuple[int | None, bytes]:
        client, url = self._clients.get(peer), self._urls.get(peer)
        if client is None or url is None:
            return None, b""
        return await client.post(url + path, body)

    async def close(self) -> None:
        """Let a call of the store end, and close the connections."""
        self._thread.shutdown()
        for client in self._clients.values():
            with suppress(OSError):
                await client.close()


def _stocked(pairs: tuple[ForeignPair, ...], groups: tuple[ForeignGroup, ...]) -> tuple[ForeignGroup, ...]:
    return (*(pair.group for pair in pairs), *(group for group in groups if group.origin is None))
