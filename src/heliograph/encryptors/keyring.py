"""The generations that are in use: at most one to send under, one being brought in or out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from heliograph.consumer.keys import Role, TunnelKeys, key_id_text
from heliograph.encryptors.generation import Generation, GenerationLimits
from heliograph.encryptors.seen_keys import SeenKeys
from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.ports import Clock

__all__ = ["Counted", "Keyring", "Ring", "Traffic"]


class Counted(Protocol):
    """What a ring asks of a generation, whatever protects its traffic."""

    sent_records: int
    sent_bytes: int
    received_records: int
    received_bytes: int

    @property
    def key_id(self) -> bytes:
        """The generation's name, 16 bytes."""

    @property
    def since(self) -> float:
        """When its key was fetched, in the clock's seconds."""

    @property
    def nearly_used(self) -> bool:
        """Whether half of a limit is used."""

    @property
    def pad_left(self) -> int | None:
        """Bytes of one-time pad left to send under; None without a pad."""

    def may_send(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes of data are within all limits now."""


G = TypeVar("G", bound=Counted)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Records and payload bytes carried since the start, over all generations."""

    sent_records: int = 0
    sent_bytes: int = 0
    received_records: int = 0
    received_bytes: int = 0

    def plus(self, generation: Counted) -> Traffic:
        """Return the sum with what ``generation`` carried."""
        return Traffic(
            self.sent_records + generation.sent_records,
            self.sent_bytes + generation.sent_bytes,
            self.received_records + generation.received_records,
            self.received_bytes + generation.received_bytes,
        )


class Ring(Generic[G]):
    """Holds generations in memory and nowhere else. ``on_nearly_used`` is called once for each, with its key_ID."""

    def __init__(
        self,
        make: Callable[[TunnelKeys, Role, GenerationLimits, float], G],
        role: Role,
        limits: GenerationLimits,
        clock: Clock,
        on_nearly_used: Callable[[bytes], None],
    ) -> None:
        self._make = make
        self.role: Final = role
        self._limits = limits
        self._send_age = limits.send_age_s
        self._clock = clock
        self._on_nearly_used = on_nearly_used
        self._held: dict[bytes, G] = {}
        self._active: G | None = None
        self._announced: bytes | None = None
        self._seen: Final = SeenKeys()
        self._past = Traffic()
        self._changed = asyncio.Event()

    def now(self) -> float:
        """Return the clock's seconds."""
        return self._clock.now()

    def seen(self, key_id: bytes) -> bool:
        """Whether this key was installed before: it must never be installed again, its nonces are used."""
        return key_id in self._seen

    def install(self, keys: TunnelKeys, since: float) -> None:
        """Accept records under these keys. Raises LocalProtocolError if they were installed before."""
        if self.seen(keys.key_id):
            raise LocalProtocolError(f"key {key_id_text(keys.key_id)} was installed before; its nonces are used")
        self._seen.add(keys.key_id)
        self._held[keys.key_id] = self._make(keys, self.role, self._limits, since)
        self.notify()

    def activate(self, key_id: bytes) -> None:
        """Send under this installed generation from the next record on."""
        if key_id not in self._held:
            raise LocalProtocolError(f"key {key_id_text(key_id)} is not installed")
        self._active = self._held[key_id]
        self.notify()

    def retire(self, key_id: bytes) -> None:
        """Forget this generation, if it is held."""
        generation = self._held.pop(key_id, None)
        if generation is not None:
            self._past = self._past.plus(generation)
        if self._active is generation:
            self._active = None
        self.notify()

    def forget_all(self) -> None:
        """Forget every generation: nothing is sent or accepted any more."""
        for key_id in list(self._held):
            self.retire(key_id)

    @property
    def sending(self) -> G | None:
        """The generation to send under; None if there is none or it is too old."""
        active = self._active
        if active is None or self.now() - active.since >= self._send_age:
            return None
        return active

    @property
    def active(self) -> G | None:
        """The active generation whatever its age, for reports."""
        return self._active

    def holds(self, key_id: bytes) -> bool:
        """Whether records under this key_ID may be accepted."""
        return key_id in self._held

    def receiving(self, key_id: bytes) -> G:
        """Return the accepted generation with this key_ID. Raises RemoteProtocolError."""
        try:
            return self._held[key_id]
        except KeyError:
            raise RemoteProtocolError(f"key {key_id_text(key_id)} is not in use: unknown or retired") from None

    @property
    def newest(self) -> bytes | None:
        """The key_ID installed last, if it is still held: what the peer sends under, or soon will."""
        return next(reversed(self._held), None)

    @property
    def traffic(self) -> Traffic:
        """What was carried since the start."""
        total = self._past
        for generation in self._held.values():
            total = total.plus(generation)
        return total

    @property
    def chunk_bytes(self) -> int:
        """The longest payload that a data record may have."""
        return self._limits.chunk_bytes

    def may_send(self, size: int) -> bool:
        """Whether a data record with ``size`` payload bytes may be sent now."""
        generation = self.sending
        return generation is not None and generation.may_send(size, self.now())

    async def changed(self) -> None:
        """Return when a generation was installed, activated or retired."""
        await self._changed.wait()

    def count(self) -> None:
        """Look at the counts; ask for a rotation when the active generation is nearly used."""
        active = self._active
        if active is not None and active.key_id != self._announced and active.nearly_used:
            self._announced = active.key_id
            self._on_nearly_used(active.key_id)

    def notify(self) -> None:
        """Wake whoever waits for ``changed``."""
        self._changed.set()
        self._changed = asyncio.Event()


class Keyring(Ring[Generation]):
    """The generations of the built-in record layer."""

    def __init__(
        self, role: Role, limits: GenerationLimits, clock: Clock, on_nearly_used: Callable[[bytes], None]
    ) -> None:
        super().__init__(Generation, role, limits, clock, on_nearly_used)
