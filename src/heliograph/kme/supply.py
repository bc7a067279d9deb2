"""Who may have which keys at this site's KME; the same rules under every delivery standard.

``caller`` is the SAE ID read from a client certificate, ``peer`` the SAE named in the request. Messages and
documents are the codecs' (``etsi014``); durability is the key store's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from heliograph.errors import ConfigurationError, KeyNotFound, KeySupplyError, NotPermitted
from heliograph.ports import Clock
from heliograph.types import StoredKey

__all__ = ["Accept", "KeyStore", "Limits", "OwnerUnreachable", "RequestRefused", "SaePair", "Supply", "SupplyStatus"]


Accept = Callable[[list[StoredKey]], object]


class KeyStore(Protocol):
    """Where allocated keys wait. A key leaves at most once, and is durably gone before the method returns.

    The first two arguments of each method name a pair of SAEs as ``StoredKey`` does. Raises StoreUnavailable.
    """

    def deliver_to_master(self, master: str, slave: str, number: int, now: float) -> list[StoredKey]:
        """Take the oldest keys that this site owns for the pair. Raises InsufficientKeys, taking none."""

    def deliver_to_slave(
        self, slave: str, master: str, key_ids: Sequence[str], now: float, accept: Accept = list
    ) -> list[StoredKey]:
        """Take the named keys that the peer's site owns, all or none. Raises KeyNotFound or NotPermitted.

        ``accept`` looks at them before anything changes; if it raises, they stay.
        """

    def check_held(self, slave: str, master: str, key_ids: Sequence[str]) -> None:
        """Return if ``deliver_to_slave`` would find these keys; raises as it does, and changes nothing."""

    def stored_key_count(self, master: str, slave: str) -> int:
        """Count what ``deliver_to_master`` could hand out now."""

    def known(self, key_id: str) -> bool:
        """Tell whether a key of that key_ID is or was in the store."""


class RequestRefused(KeySupplyError):
    """The request asks for something this KME does not do; the text says what it does instead.

    ``details``: pairs of a name and a text for the answer's details (ETSI GS QKD 014 6.5).
    """

    def __init__(self, message: str, details: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class OwnerUnreachable(KeySupplyError):
    """The key_ID is not known here and the site that would know it cannot be asked now; try again."""


@dataclass(frozen=True, slots=True)
class SaePair:
    """An SAE of this site and one of another site that may share keys, in both directions."""

    local_sae: str
    remote_sae: str
    remote_kme: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What this KME serves: one key size (bits, a multiple of 8), and caps. Raises ConfigurationError."""

    key_size_bits: int = 256
    max_key_count: int = 100_000
    max_key_per_request: int = 128

    def __post_init__(self) -> None:
        if self.key_size_bits < 8 or self.key_size_bits % 8:
            raise ConfigurationError(f"key_size_bits = {self.key_size_bits}: a positive multiple of 8 is needed")
        if self.max_key_count < 1 or self.max_key_per_request < 1:
            raise ConfigurationError("max_key_count and max_key_per_request must be at least 1")


@dataclass(frozen=True, slots=True)
class SupplyStatus:
    """The supply of one pair as its local SAE may see it; counts only."""

    source_kme: str
    target_kme: str
    caller_sae: str
    peer_sae: str
    key_size_bits: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int


class Supply:
    """The key supply of one site.

    ``clock``: stamps deliveries; it must be the one that stamps new keys. ``owner_reachable``: tells for the remote
    SAE of a pair whether its site answers now (security.md 8: an unknown key_ID is a 503 while it does not).
    Raises ConfigurationError for contradictory pairs.
    """

    def __init__(
        self,
        keys: KeyStore,
        kme_id: str,
        pairs: Iterable[SaePair],
        limits: Limits,
        clock: Clock,
        *,
        owner_reachable: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._keys = keys
        self._kme_id = kme_id
        self._limits = limits
        self._clock = clock
        self._owner_reachable = owner_reachable
        self._pairs: dict[str, dict[str, SaePair]] = {}
        for pair in pairs:
            if not pair.local_sae.strip() or not pair.remote_sae.strip() or pair.local_sae == pair.remote_sae:
                raise ConfigurationError(f"pair {pair}: two different SAE IDs are needed, neither blank")
            peers = self._pairs.setdefault(pair.local_sae, {})
            if pair.remote_sae in peers:
                raise ConfigurationError(f"pair {pair}: registered twice; keep one entry")
            peers[pair.remote_sae] = pair
        both = self._pairs.keys() & {remote for peers in self._pairs.values() for remote in peers}
        if both:
            raise ConfigurationError(f"SAE {min(both)}: registered as local and as remote; an SAE is at one site")

    @property
    def limits(self) -> Limits:
        """What this KME serves."""
        return self._limits

    def authorise(self, caller: str, peer: str) -> SaePair:
        """Return the registered pair. Raises NotPermitted for an unknown caller, RequestRefused for a wrong peer."""
        # Who is not registered learns nothing, not even which SAEs exist; who is, gets a reason to act on.
        if caller not in self._pairs:
            raise NotPermitted("this SAE is not registered at this KME")
        if not peer.strip():
            raise RequestRefused("the SAE ID in the path is blank")
        if peer == caller:
            raise RequestRefused("the SAE ID in the path is the caller's own; name the SAE at the other site")
        pair = self._pairs[caller].get(peer)
        if pair is None:
            raise RequestRefused("the SAE ID in the path is not registered to share keys with the calling SAE")
        return pair

    def status(self, caller: str, peer: str) -> SupplyStatus:
        """Tell how many keys the caller could fetch for the peer. Raises NotPermitted or RequestRefused."""
        pair = self.authorise(caller, peer)
        return SupplyStatus(
            source_kme=self._kme_id,
            target_kme=pair.remote_kme,
            caller_sae=caller,
            peer_sae=peer,
            key_size_bits=self._limits.key_size_bits,
            stored_key_count=self._keys.stored_key_count(caller, peer),
            max_key_count=self._limits.max_key_count,
            max_key_per_request=self._limits.max_key_per_request,
        )

    def enc_keys(self, caller: str, peer: str, number: int) -> list[StoredKey]:
        """Hand out ``number`` fresh keys. Raises NotPermitted, RequestRefused, InsufficientKeys."""
        self.authorise(caller, peer)
        if not 1 <= number <= self._limits.max_key_per_request:
            raise RequestRefused(f"number must be between 1 and {self._limits.max_key_per_request}")
        return self._keys.deliver_to_master(caller, peer, number, self._clock.now())

    def check_held(self, caller: str, peer: str, key_ids: Sequence[str]) -> None:
        """Return if ``dec_keys`` would find these keys. Raises as it does; nothing changes."""
        self.authorise(caller, peer)
        self._keys.check_held(caller, peer, key_ids)

    def dec_keys(self, caller: str, peer: str, key_ids: Sequence[str], accept: Accept = list) -> list[StoredKey]:
        """Hand out the keys that the peer was given, all or none; none if ``accept`` raises when it sees them.

        Raises NotPermitted, RequestRefused, KeyNotFound or OwnerUnreachable; what was refused is still there.
        """
        self.authorise(caller, peer)
        if not 1 <= len(key_ids) <= self._limits.max_key_per_request:
            raise RequestRefused(f"between 1 and {self._limits.max_key_per_request} key_IDs are served at a time")
        try:
            return self._keys.deliver_to_slave(caller, peer, key_ids, self._clock.now(), accept)
        except KeyNotFound:
            if not self._owner_reachable(peer) and not all(self._keys.known(key_id) for key_id in key_ids):
                raise OwnerUnreachable(
                    "a key_ID is not known here and the KME that would know it cannot be reached; try again later"
                ) from None
            raise
