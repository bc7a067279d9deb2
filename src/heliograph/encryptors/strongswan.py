"""strongSwan under keys of a consumer: a post-quantum preshared key (RFC 8784) for each IKE security association, once.

RFC 8784 mixes the key in when an association is authenticated, and never again; a rekeying adds none. So each
generation brings up an association of its own beside the one in use, and then ends that one:

    responder  install: charon knows the key; the association in use goes on
    initiator  activate: the same, and an association under it comes up; only then is the change committed
    both       charon forgets the key; the initiator ends the old association when both have changed

The key is in charon's store while an association comes up, and not afterwards. charon ends an association by itself
past ``max_key_age_s``, so it ends under an agent that was killed, too. An association that is lost (charon restarted,
the peer forgot it) is not built again under its key: an alarm is raised, and another rotation is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from heliograph.consumer.encryptor import EncryptorReport
from heliograph.consumer.keys import Role, TunnelKeys, key_id_text
from heliograph.encryptors.charon import Association
from heliograph.encryptors.seen_keys import SeenKeys
from heliograph.encryptors.settler import Settler
from heliograph.encryptors.strongswan_config import StrongSwanConfig
from heliograph.encryptors.strongswan_work import CharonWork, Seen, Wish
from heliograph.errors import ConfigurationError, EncryptorUnavailable, LocalProtocolError
from heliograph.ports import Clock

__all__ = ["StrongSwan"]

# Our choice, in seconds.
_CHECK_SECONDS: Final = 0.5
_ASK_SECONDS: Final = 5.0  # between two requests for another rotation
_HANGS_SECONDS: Final = 15.0  # an order that takes so long: charon hangs
_ATTEMPTS: Final = 3  # then the key is given up
_RETRY_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 5.0
_PACKETS_MAX: Final = 1 << 31  # half of what ESP counts in 32 bits (RFC 4303 3.3.3)

_log = logging.getLogger("heliograph.agent")


@dataclass(slots=True)
class _Generation:
    key: bytes = field(repr=False)
    since: float
    in_place: bool = False  # charon knew the key, at the responder; an association stood under it, at the initiator
    stood: bool = False
    asked_for_next: bool = False
    retry_at: float = -math.inf
    failures: int = 0


class StrongSwan:
    """One tunnel of one charon (``consumer.encryptor.Encryptor``).

    The callbacks are those of ``Forwarder``; ``on_in_place``: a key is in place that was not; ``on_not_taken``: no
    association comes up under a key. ``rekey_bytes``: another rotation is asked for at half of it. Raises
    ConfigurationError without the package vici.
    """

    def __init__(
        self,
        role: Role,
        config: StrongSwanConfig,
        max_key_age_s: float,
        rekey_bytes: int,
        clock: Clock,
        *,
        on_nearly_used: Callable[[bytes], None],
        on_drained: Callable[[bytes], None],
        on_in_place: Callable[[bytes], None],
        on_not_taken: Callable[[bytes], None],
    ) -> None:
        self._role: Final = role
        self._name: Final = config.name
        self._max_key_age_s = max_key_age_s
        self._rekey_bytes = rekey_bytes
        self._clock = clock
        self._on_nearly_used = on_nearly_used
        self._on_drained = on_drained
        self._on_in_place = on_in_place
        self._on_not_taken = on_not_taken
        self._work: Final = CharonWork(role, config)
        self._settler: Final = Settler(f"strongswan {config.name}", self._work.settle, self._settled)
        self._generations: dict[bytes, _Generation] = {}
        self._candidate: bytes | None = None  # at the responder: installed, and not committed yet
        self._active: bytes | None = None
        self._draining: bytes | None = None
        self._associations: dict[str, list[Association]] = {}
        self._counted: dict[str, tuple[int, int]] = {}  # bytes received and sent of each association that stands
        self._ended_bytes = (0, 0)
        self._alarm: str | None = None
        self._unguarded: str | None = None  # once the guard failed, an operator must hear of it
        self._asked_at = -math.inf
        self._checked_at = -math.inf
        self._busy_since = math.inf
        self._seen: Final = SeenKeys()

    async def start(self) -> None:
        """Guard the networks and end what an earlier agent left. Raises ConfigurationError without charon."""
        try:
            await asyncio.to_thread(self._work.begin)
        except EncryptorUnavailable as why:
            raise ConfigurationError(str(why)) from None
        self._settler.start()

    async def close(self) -> None:
        """End every association and forget every key; the guard stays."""
        self._generations.clear()
        self._active = self._candidate = self._draining = None
        self._wish()
        if not await self._settler.close(_CLOSE_SECONDS):
            _log.error("strongswan %s: charon does not answer; it ends the tunnel by itself when its key is too old",
                       self._name)  # fmt: skip
        self._work.release()

    def install(self, keys: TunnelKeys, since: float) -> None:
        """At the responder: make charon know the key. At the initiator: keep it for ``activate``."""
        if self.seen(keys.key_id):
            raise LocalProtocolError(f"key {key_id_text(keys.key_id)} was installed before")
        self._seen.add(keys.key_id)
        self._generations[keys.key_id] = _Generation(keys.initiator_key.to_bytes(), since)
        if self._role is Role.RESPONDER:
            self._candidate = keys.key_id
            self._wish()

    def activate(self, key_id: bytes) -> None:
        """At the initiator: bring up an association under the key. At the responder it has come up."""
        if key_id not in self._generations:
            raise LocalProtocolError(f"key {key_id_text(key_id)} is not installed")
        self._active = key_id
        if self._candidate == key_id:
            self._candidate = None
        self._wish()

    def drain(self, key_id: bytes) -> None:
        """End the old association now that the new one stands; the responder waits until its peer has done so."""
        self._draining = key_id
        self._tell_drained()

    def retire(self, key_id: bytes) -> None:
        """Forget this generation and end its association."""
        self._generations.pop(key_id, None)
        self._active = None if self._active == key_id else self._active
        self._candidate = None if self._candidate == key_id else self._candidate
        self._draining = None if self._draining == key_id else self._draining
        self._wish()

    def seen(self, key_id: bytes) -> bool:
        """Whether this key was installed before."""
        return key_id in self._seen

    def holds(self, key_id: bytes) -> bool:
        """Whether this key is in place, so that the peer may be told."""
        generation = self._generations.get(key_id)
        return generation is not None and generation.in_place

    def check(self) -> None:
        """Look at charon's associations; ask for another rotation where one is missing."""
        now = self._clock.now()
        if now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        if not self._settler.busy:
            self._wish()
        elif now - self._busy_since > _HANGS_SECONDS:
            self._associations = {}
            self._alarm = f"strongswan {self._name}: charon does not answer for {_HANGS_SECONDS:g} s: restart it"

    def report(self) -> EncryptorReport:
        """Return a snapshot. The key is the one that traffic passes under, which may be the one before."""
        now = self._clock.now()
        passing = [
            (generation.since, key_id)
            for key_id, generation in self._generations.items()
            if now - generation.since < self._max_key_age_s and self._associations.get(key_id_text(key_id))
        ]
        if self._active in [key_id for _, key_id in passing]:
            key_id: bytes | None = self._active
        else:
            key_id = max(passing)[1] if passing else self._active
        since = self._generations[key_id].since if key_id in self._generations else -math.inf
        received, sent = (
            ended + sum(counts[at] for counts in self._counted.values()) for at, ended in enumerate(self._ended_bytes)
        )
        return EncryptorReport(
            key_id=key_id,
            since=since,
            sending=bool(passing),
            sent_bytes=sent,
            received_bytes=received,
            alarm=self._alarm or self._unguarded,
        )

    # What charon must be like, and what it is like.

    def _wish(self) -> None:
        now = self._clock.now()
        fresh = {
            key_id: generation
            for key_id, generation in self._generations.items()
            if now - generation.since < self._max_key_age_s  # looked at here once more, whatever the rotation does
        }
        # charon knows a key only until its association stands: the initiator says "commit" when it does.
        key_id = self._candidate if self._role is Role.RESPONDER else self._active
        wanted = fresh.get(key_id) if key_id is not None else None
        if wanted is not None and self._role is Role.INITIATOR and wanted.stood:
            wanted = None
        if not self._settler.busy:
            self._busy_since = now
        keep = frozenset(key_id_text(one) for one in fresh)
        if key_id is None or wanted is None:
            self._settler.wish(Wish(keep=keep))
            return
        left = max(1, math.floor(self._max_key_age_s - (now - wanted.since)))
        initiate = self._role is Role.INITIATOR and now >= wanted.retry_at
        self._settler.wish(Wish(key_id_text(key_id), wanted.key, left, initiate, keep))

    def _settled(self, wish: Wish, result: Seen | EncryptorUnavailable) -> None:
        self._busy_since = self._clock.now()
        if isinstance(result, EncryptorUnavailable):
            self._associations, self._alarm = {}, str(result)
            self._ask_for_another()
            return
        self._associations = result.associations
        if result.unguarded:
            self._unguarded = (
                f"strongswan {self._name}: a rule of the guard was missing and is set again: packets may have left in "
                "clear; find out what removed it (systemd-networkd does: ManageForeignRoutingPolicyRules=no)"
            )
            _log.error("%s", self._unguarded)
        self._count(result)
        for key_id, generation in list(self._generations.items()):
            standing = bool(result.associations.get(key_id_text(key_id)))
            ready = standing if self._role is Role.INITIATOR else standing or result.known == key_id_text(key_id)
            generation.stood = generation.stood or standing
            if ready and not generation.in_place:
                generation.in_place = True
                self._on_in_place(key_id)
        self._judge(wish, result)
        self._tell_drained()

    def _judge(self, wish: Wish, result: Seen) -> None:
        active = self._generations.get(self._active) if self._active is not None else None
        if self._active is None or active is None:
            self._alarm = result.trouble
            return
        name = key_id_text(self._active)
        standing = result.associations.get(name)
        if standing:
            self._alarm = None
            used = max(max(one.sent_bytes, one.received_bytes) for one in standing)
            packets = max(one.sent_packets for one in standing)
            if not active.asked_for_next and (used >= self._rekey_bytes // 2 or packets >= _PACKETS_MAX):
                active.asked_for_next = True
                self._on_nearly_used(self._active)
        elif active.stood:
            self._alarm = (
                f"strongswan {self._name}: the association under key {name} is gone (charon was restarted, or its "
                "peer ended it): nothing passes until the next key"
            )
            self._ask_for_another()
        elif result.trouble is not None and wish.initiate and wish.key_id == name:
            active.failures += 1
            active.retry_at = self._clock.now() + _RETRY_SECONDS
            self._alarm = (
                f"{result.trouble}; no association under key {name}: charon's log says why; check the peer's charon "
                "and agent, the certificates and their names, and UDP ports 500 and 4500"
            )
            if active.failures >= _ATTEMPTS:
                self._on_not_taken(self._active)
        elif self._role is Role.RESPONDER:
            self._alarm = f"strongswan {self._name}: no association under key {name} has come up"
            self._ask_for_another()

    def _ask_for_another(self) -> None:
        now = self._clock.now()
        if self._active is not None and now - self._asked_at >= _ASK_SECONDS:
            self._asked_at = now
            self._on_nearly_used(self._active)

    def _tell_drained(self) -> None:
        old = self._draining
        if old is None or self._active is None or not self._associations.get(key_id_text(self._active)):
            return
        if self._role is Role.INITIATOR or not self._associations.get(key_id_text(old)):
            self._draining = None
            self._on_drained(old)

    def _count(self, result: Seen) -> None:
        standing = {one.spis: one for each in result.associations.values() for one in each}
        for spis in [spis for spis in self._counted if spis not in standing]:
            received, sent = self._counted.pop(spis)
            self._ended_bytes = self._ended_bytes[0] + received, self._ended_bytes[1] + sent
        self._counted |= {spis: (one.received_bytes, one.sent_bytes) for spis, one in standing.items()}
