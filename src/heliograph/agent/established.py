"""A key source whose keys two agents make together: QKD's keys, exchanges, or both, as the policy says.

To the rotation it looks like a key manager. The initiator's ``get_key`` runs one establishment over the control
channel; the responder's ``get_key_with_id`` gives out what the answer to an offer has made, once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from uuid import UUID

from heliograph.consumer.keys import key_id_text
from heliograph.errors import KeyNotFound, KeySupplyError, LocalProtocolError, RemoteProtocolError
from heliograph.establishment.exchange import Initiated, Settings, initiate, read_offer, respond
from heliograph.establishment.greeting import answer_call, call, check_here
from heliograph.establishment.messages import Tagged
from heliograph.ports import KeyEstablishment, RandomSource
from heliograph.types import DeliveredKey, EstablishedKey

__all__ = ["EstablishedKeySource"]

# Our choice. Keys that wait for their Prepare, and offers remembered so that a repeated one is never taken twice.
_WAITING_MAX: Final = 4
_REMEMBERED: Final = 4096
_Value = TypeVar("_Value")


class EstablishedKeySource:
    """One side of the establishments of a tunnel (``ports.KeySource``). ``send``: to the peer's agent, may be lost."""

    def __init__(
        self,
        settings: Settings,
        methods: Mapping[str, KeyEstablishment],
        randomness: RandomSource,
        send: Callable[[Tagged], None],
        answer_seconds: float,
    ) -> None:
        self._settings: Final = settings
        self._methods = methods
        self._randomness = randomness
        self._send = send
        self._answer_seconds = answer_seconds
        self._offered: tuple[Initiated, asyncio.Future[EstablishedKey]] | None = None
        self._called: tuple[bytes, asyncio.Future[None]] | None = None
        self._waiting: OrderedDict[bytes, EstablishedKey] = OrderedDict()
        self._taken: OrderedDict[bytes, None] = OrderedDict()
        self._components: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()

    def components(self, key_id: bytes) -> tuple[str, ...]:
        """Return what the key with this name is made of, for reports; nothing if it is not known any more."""
        return self._components.get(key_id, ())

    async def get_key(self) -> DeliveredKey:
        """Establish a fresh key, as initiator. Raises KeySupplyError, RemoteProtocolError."""
        if self._settings.is_pad:
            await self._call()
        initiated = await initiate(self._settings, self._methods, self._fresh_id())
        answered: asyncio.Future[EstablishedKey] = asyncio.get_running_loop().create_future()
        self._offered = initiated, answered
        try:
            self._send(initiated.message)
            async with asyncio.timeout(self._answer_seconds):
                return self._delivered(await answered)
        except TimeoutError:
            pad = "; or its key manager is too slow for pad_keys keys, which its own status tells"
            more = pad if self._settings.is_pad else ""
            raise KeySupplyError(
                "the peer's agent did not answer an offer of keys: check that it runs, and that policy, exchanges, "
                f"combiner, cipher, SAE IDs and peer_key are the same on both sites{more}"
            ) from None
        finally:
            if self._offered is not None and self._offered[0] is initiated:
                self._offered = None

    async def _call(self) -> None:
        """Return when the peer has shown that it is there; before that, no pad is fetched for it."""
        nonce = self._fresh_id()
        called = nonce, asyncio.get_running_loop().create_future()
        self._called = called
        try:
            self._send(call(self._settings, nonce))
            async with asyncio.timeout(self._answer_seconds):
                await called[1]
        except TimeoutError:
            raise KeySupplyError(
                "the peer's agent does not answer a call, so no pad is fetched: check that it runs, that its cipher is "
                "one-time-pad, and that peer_key is the same on both sites"
            ) from None
        finally:
            if self._called is called:
                self._called = None

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        """Give out the key that was established under this name, as responder, once. Raises KeyNotFound."""
        key = self._waiting.pop(UUID(key_id).bytes, None)
        if key is None:
            raise KeyNotFound(
                f"no key was established under key_ID {key_id}; the policy here is "
                f"{self._settings.requirement.policy}: set the same on both sites"
            )
        return self._delivered(key)

    def answered(self, message: Tagged) -> None:
        """Take the peer's answer. Raises RemoteProtocolError, and the call or the offer stands."""
        if self._called is not None:
            nonce, here = self._called
            check_here(self._settings, nonce, message)
            if not here.done():
                here.set_result(None)
            return
        if self._offered is None:
            return  # late: that key is never used
        initiated, future = self._offered
        if not future.done():
            future.set_result(initiated.finish(message))

    async def answer(self, message: Tagged) -> Tagged:
        """Answer a call, or an offer, whose key is kept. Raises RemoteProtocolError, KeySupplyError."""
        if (here := answer_call(self._settings, message)) is not None:
            return here
        offer = read_offer(self._settings, message)
        if offer.key_id in self._taken:
            raise RemoteProtocolError(f"an offer under key_ID {key_id_text(offer.key_id)} came before: replayed")
        _remember(self._taken, offer.key_id, None)
        key, answer = await respond(self._settings, self._methods, message)
        self._waiting[key.key_id] = key
        while len(self._waiting) > _WAITING_MAX:
            self._waiting.popitem(last=False)
        return answer

    def _delivered(self, key: EstablishedKey) -> DeliveredKey:
        _remember(self._components, key.key_id, key.components)
        return DeliveredKey(key_id_text(key.key_id), key.material)

    def _fresh_id(self) -> bytes:
        drawn = self._randomness.draw(16)
        if len(drawn) != 16:
            raise LocalProtocolError("the random source gave too few bytes")
        return UUID(bytes=drawn, version=4).bytes


def _remember(memory: OrderedDict[bytes, _Value], key: bytes, value: _Value) -> None:
    memory[key] = value
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
