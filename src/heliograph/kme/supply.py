"""Who may have which keys at this site's KME; the same rules under every delivery standard.

``caller`` is the SAE ID read from a client certificate, ``peer`` the SAE named in the request. Messages and
documents are the codecs' (``etsi014``); durability is the key store's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from heliograph.errors import (
    ConfigurationError,
    InsufficientKeys,
    KeyNotFound,
    NotPermitted,
    StoreUnavailable,
)
from heliograph.kme.groups import LOCAL_UNFETCHED_MAX, Groups, SaeGroup
from heliograph.kme.key_sizes import KeySizes
from heliograph.kme.key_store import Accept, Issue, KeyStore
from heliograph.kme.quotas import Quotas, TooManyRequests
from heliograph.kme.refusals import OwnerUnreachable, RequestRefused, WishUnmet
from heliograph.ports import Clock
from heliograph.protocol.audience import audience_members
from heliograph.types import StoredKey

__all__ = [
    "Accept",
    "Issue",
    "KeyStore",
    "Limits",
    "OwnerUnreachable",
    "RequestRefused",
    "SaePair",
    "Supply",
    "SupplyStatus",
    "WishUnmet",
]


@dataclass(frozen=True, slots=True)
class SaePair:
    """An SAE of this site and one of another site that may share keys, in both directions.

    ``link``: which of the site's further links carries their keys; empty for the first, and for what needs no link.
    """

    local_sae: str
    remote_sae: str
    remote_kme: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What this KME serves: the usual key size (bits, a multiple of 8), and caps. Raises ConfigurationError.

    ``reserve``: keys of each pair, of the size for whoever names none, that no SAE is given; they authenticate
    messages between key managers. ``further_counts``: ``max_key_count`` of the pairs of each further link.
    """

    key_size_bits: int = 256
    max_key_count: int = 100_000
    max_key_per_request: int = 128
    reserve: int = 0
    further_counts: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.key_size_bits < 8 or self.key_size_bits % 8:
            raise ConfigurationError(f"key_size_bits = {self.key_size_bits}: a positive multiple of 8 is needed")
        if min(self.max_key_count, self.max_key_per_request, *self.further_counts.values()) < 1:
            raise ConfigurationError("max_key_count and max_key_per_request must be at least 1")
        if self.reserve < 0:
            raise ConfigurationError(f"reserve = {self.reserve}: not below 0")

    def count_of(self, link: str) -> int:
        """Return how many keys at most wait for each pair of a link."""
        return self.further_counts.get(link, self.max_key_count)


@dataclass(frozen=True, slots=True)
class SupplyStatus:
    """The supply of one pair as its local SAE may see it; counts only.

    ``key_size_bits``: of the keys for whoever names no size, of which ``stored_key_count`` are there; ``min`` and
    ``max_key_size_bits``: None if there is no other; ``stored_by_size``: the count of each, if there are several.
    ``max_sae_id_count``: how many further slaves its largest group has; ``unfetched``: of keys drawn for a group of one
    site, how many each slave has left, which is what may stop the group.
    """

    source_kme: str
    target_kme: str
    caller_sae: str
    peer_sae: str
    key_size_bits: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_sae_id_count: int = 0
    min_key_size_bits: int | None = None
    max_key_size_bits: int | None = None
    stored_by_size: Mapping[int, int] = field(default_factory=dict)
    unfetched: Mapping[str, int] = field(default_factory=dict)


class Supply:
    """The key supply of one site: one for all its links, so that every door has one set of rules.

    ``keys``: the store of the first link; ``further``: those of the others by name. A pair's keys come from the store
    of its own link and of no other.
    ``clock``: stamps deliveries; it must be the one that stamps new keys. ``owner_reachable``: tells for a pair
    whether the other site answers now (security.md 8: an unknown key_ID is a 503 while it does not).
    ``groups``: of SAEs that share keys; ``issue``: draws the keys of those that are all of this site; ``sizes``: of
    each pair's and group's keys, that of ``limits`` for those that it does not name.
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
        owner_reachable: Callable[[SaePair], bool] = lambda _: True,
        groups: Iterable[SaeGroup] = (),
        issue: Issue | None = None,
        quotas: Quotas | None = None,
        sizes: KeySizes | None = None,
        further: Mapping[str, KeyStore] | None = None,
    ) -> None:
        self._stores: Mapping[str, KeyStore] = {"": keys, **(further or {})}
        self._kme_id = kme_id
        self._limits = limits
        self._clock = clock
        self._owner_reachable = owner_reachable
        self._groups = Groups(groups)
        self._issue = issue
        self._quotas = quotas or Quotas(clock)
        self._sizes = sizes or KeySizes(limits.key_size_bits)
        self._pairs: dict[str, dict[str, SaePair]] = {}
        for pair in pairs:
            if not pair.local_sae.strip() or not pair.remote_sae.strip() or pair.local_sae == pair.remote_sae:
                raise ConfigurationError(f"pair {pair}: two different SAE IDs are needed, neither blank")
            peers = self._pairs.setdefault(pair.local_sae, {})
            if pair.remote_sae in peers:
                raise ConfigurationError(f"pair {pair}: registered twice; keep one entry")
            peers[pair.remote_sae] = pair
        self._locals = self._pairs.keys() | self._groups.here()
        both = self._locals & {remote for peers in self._pairs.values() for remote in peers}
        if both:
            raise ConfigurationError(f"SAE {min(both)}: registered as local and as remote; an SAE is at one site")
        self._check_one_link_each()

    def _check_one_link_each(self) -> None:
        """Refuse two SAEs with the keys of two stores: a slave names its master only, not which of them is meant."""
        couples = [((p.local_sae, p.remote_sae), p.link) for peers in self._pairs.values() for p in peers.values()]
        couples += [((group.master, slave), group.link) for group in self._groups for slave in group.slaves]
        links: dict[frozenset[str], str] = {}
        for couple, link in couples:
            if links.setdefault(frozenset(couple), link) != link:
                one, other = sorted(couple)
                raise ConfigurationError(
                    f"SAEs {one!r} and {other!r} share keys over a further link and by another pair or group; keep one"
                )

    def follow(self, fresh: Supply) -> None:
        """Serve whom, and how much, ``fresh`` would serve, from now on; it is a supply over the same store."""
        self._quotas.follow(fresh._quotas)
        self._limits, self._owner_reachable = fresh._limits, fresh._owner_reachable
        self._sizes = fresh._sizes
        self._pairs, self._groups, self._locals = fresh._pairs, fresh._groups, fresh._locals

    def serves(self, caller: str) -> bool:
        """Tell whether an SAE is registered here."""
        return caller in self._locals

    @property
    def limits(self) -> Limits:
        """What this KME serves."""
        return self._limits

    def admit(self, caller: str) -> None:
        """Count a request of a registered SAE. Raises NotPermitted, TooManyRequests. Not from two threads at once."""
        if caller not in self._locals:
            raise NotPermitted("this SAE is not registered at this KME")
        self._quotas.admit(caller)

    def authorise(self, caller: str, peer: str) -> SaePair:
        """Return the registered pair. Raises NotPermitted for an unknown caller, RequestRefused for a wrong peer."""
        # Who is not registered learns nothing, not even which SAEs exist; who is, gets a reason to act on.
        if caller not in self._locals:
            raise NotPermitted("this SAE is not registered at this KME")
        if not peer.strip():
            raise RequestRefused("the SAE ID in the path is blank")
        if peer == caller:
            raise RequestRefused("the SAE ID in the path is the caller's own; name the SAE at the other site")
        pair = self._pairs.get(caller, {}).get(peer)
        if pair is not None:
            return pair
        group = self._groups.with_slave(caller, peer) or self._groups.with_slave(peer, caller)
        if group is None:
            raise RequestRefused("the SAE ID in the path is not registered to share keys with the calling SAE")
        return SaePair(caller, peer, self._kme_id, group.link)

    def status(self, caller: str, peer: str) -> SupplyStatus:
        """Tell how many keys the caller could fetch for the peer. Raises NotPermitted or RequestRefused."""
        pair = self.authorise(caller, peer)
        group = self._groups.with_slave(caller, peer)
        is_pair = peer in self._pairs.get(caller, {})
        audience = peer if is_pair or group is None else group.audience
        sizes = self._sizes.of(caller, audience)
        drawn = not is_pair and group is not None and group.local
        most, behind = self._limits.count_of(pair.link), dict[str, int]()
        room = most
        if drawn:  # on demand: short only of slaves that fetch
            behind = self._stores[pair.link].unfetched(caller, audience)
            room = min(most, max(0, LOCAL_UNFETCHED_MAX - max(behind.values(), default=0)))
        stored = {
            # A slave has no key to fetch as master.
            size: room if drawn else self._stored(pair.link, caller, audience, size)
            for size in sizes
        }
        several = len(sizes) > 1
        return SupplyStatus(
            source_kme=self._kme_id,
            target_kme=pair.remote_kme,
            caller_sae=caller,
            peer_sae=peer,
            key_size_bits=sizes[0],
            stored_key_count=stored[sizes[0]],
            max_key_count=most,
            max_key_per_request=self._limits.max_key_per_request,
            max_sae_id_count=self._max_additional(caller, peer),
            min_key_size_bits=min(sizes) if several else None,
            max_key_size_bits=max(sizes) if several else None,
            stored_by_size=stored if several else {},
            unfetched=behind,
        )

    def key_sizes(self, master: str, slave: str) -> tuple[int, ...]:
        """Return the sizes of a pair's keys in bits, first the one for whoever names none."""
        return self._sizes.of(master, slave)

    def stored(self, master: str, audience: str, size_bits: int | None = None) -> int:
        """Count the keys that the master could fetch, of one size, of the one for whoever names none by default."""
        pair = self._pairs.get(master, {}).get(audience)
        # Whoever asks for a group asks for one that needs no link: its keys are in the first link's store.
        link, size = pair.link if pair else "", size_bits or self.key_sizes(master, audience)[0]
        return self._stored(link, master, audience, size)

    def _reserve(self, master: str, audience: str, size_bits: int) -> int:
        return self._limits.reserve if size_bits == self._sizes.of(master, audience)[0] else 0

    def _stored(self, link: str, master: str, audience: str, size_bits: int) -> int:
        stored = self._stores[link].stored_key_count(master, audience, size_bits // 8)
        return max(0, stored - self._reserve(master, audience, size_bits))

    def _max_additional(self, caller: str, peer: str) -> int:
        group = self._groups.with_slave(caller, peer)
        return len(group.slaves) - 1 if group else 0

    def enc_keys(
        self,
        caller: str,
        peer: str,
        number: int,
        *,
        additional: Sequence[str] = (),
        size_bits: int | None = None,
        max_age_s: float | None = None,
        accept: Accept = list,
    ) -> list[StoredKey]:
        """Hand out ``number`` fresh keys, to be shared with ``peer`` and the ``additional`` slaves.

        ``size_bits``: of each, one of ``key_sizes``; ``max_age_s``: none older; ``accept`` looks at them first, and if
        it raises, none is taken. Raises NotPermitted, RequestRefused, WishUnmet, InsufficientKeys, TooManyRequests.
        """
        pair = self.authorise(caller, peer)
        if not 1 <= number <= self._limits.max_key_per_request:
            raise RequestRefused(f"number must be between 1 and {self._limits.max_key_per_request}")
        slaves = (peer, *additional)
        if len(set(slaves)) != len(slaves):
            raise RequestRefused("additional_slave_SAE_IDs: an SAE comes twice, or is the one in the path")
        group = self._groups.find(caller, slaves)
        if len(additional) > (most := self._max_additional(caller, peer)):
            raise RequestRefused(
                f"additional_slave_SAE_IDs: at most max_SAE_ID_count = {most} are supported; name no more"
            )
        if group is None and (additional or peer not in self._pairs.get(caller, {})):
            raise RequestRefused(
                "additional_slave_SAE_IDs: these SAEs are not registered to share a key with the calling SAE"
            )
        audience = group.audience if group else peer
        size = self._sizes.choose(caller, audience, size_bits)
        if number > (at_once := self._quotas.most(caller, audience)):
            # Refused for good, not for now: no waiting would fill the bucket so far.
            raise RequestRefused(f"number exceeds the quota of this pair of SAEs, {at_once:g} keys at once")
        counted = False

        def last_word(keys: list[StoredKey]) -> None:
            nonlocal counted
            accept(keys)
            self._quotas.take(caller, audience, number)
            counted = True

        try:
            return self._take(group, pair, audience, number, size, max_age_s, last_word)
        except StoreUnavailable:
            if counted:
                self._quotas.give_back(caller, audience, number)
            raise

    def at_once(self, caller: str, peer: str) -> int:
        """Return how many keys of a pair one ``enc_keys`` can give at most: more are refused, for good."""
        return int(min(self._limits.max_key_per_request, self._quotas.most(caller, peer)))

    def give_back(self, caller: str, peer: str, number: int, additional: Sequence[str] = ()) -> None:
        """Give the quota back that ``enc_keys`` took, when its keys could not be made durable after it returned."""
        group = self._groups.find(caller, (peer, *additional))
        self._quotas.give_back(caller, group.audience if group else peer, number)

    def _take(
        self,
        group: SaeGroup | None,
        pair: SaePair,
        audience: str,
        number: int,
        size_bits: int,
        max_age_s: float | None,
        last_word: Accept,
    ) -> list[StoredKey]:
        now, caller, keys = self._clock.now(), pair.local_sae, self._stores[pair.link]
        if group is not None and group.local:
            if self._issue is None:
                raise RequestRefused("keys between SAEs of one site are not served here")
            return self._issue(caller, audience, number, size_bits // 8, now, last_word)
        keep, size = self._reserve(caller, audience, size_bits), size_bits // 8
        since = float("-inf") if max_age_s is None else now - max_age_s
        try:
            return keys.deliver_to_master(
                caller, audience, number, now, keep=keep, since=since, size_bytes=size, accept=last_word
            )
        except TooManyRequests:
            raise
        except InsufficientKeys:
            if max_age_s is None or keys.stored_key_count(caller, audience, size) < number + keep:
                raise
            raise WishUnmet("heliograph_max_age_s", "too few keys are that young") from None

    def draw(self, caller: str, peer: str, number: int) -> list[StoredKey]:
        """Take keys of a pair for the key manager's own messages, the reserve included. Raises as ``enc_keys``."""
        pair = self.authorise(caller, peer)
        size = self._sizes.of(caller, peer)[0] // 8
        return self._stores[pair.link].deliver_to_master(caller, peer, number, self._clock.now(), size_bytes=size)

    def now(self) -> float:
        """Return the time on the clock that stamps keys."""
        return self._clock.now()

    def path(self, key: StoredKey) -> tuple[str, ...]:
        """Return the key managers at which a key exists, this one first: those of its master and of all its slaves."""
        saes = (key.master_sae, *audience_members(key.slave_sae))
        pairs = (self._pairs.get(here, {}).get(there) for here in saes for there in saes)
        return (self._kme_id, *sorted({pair.remote_kme for pair in pairs if pair is not None}))

    def check_held(self, caller: str, peer: str, key_ids: Sequence[str]) -> None:
        """Return if ``dec_keys`` would find these keys. Raises as it does; nothing changes."""
        pair = self.authorise(caller, peer)
        self._stores[pair.link].check_held(caller, peer, key_ids)

    def dec_keys(self, caller: str, peer: str, key_ids: Sequence[str], accept: Accept = list) -> list[StoredKey]:
        """Hand out the keys that the peer was given, all or none; none if ``accept`` raises when it sees them.

        Raises NotPermitted, RequestRefused, KeyNotFound or OwnerUnreachable; what was refused is still there.
        """
        pair = self.authorise(caller, peer)
        keys = self._stores[pair.link]
        if not 1 <= len(key_ids) <= self._limits.max_key_per_request:
            raise RequestRefused(f"between 1 and {self._limits.max_key_per_request} key_IDs are served at a time")
        try:
            return keys.deliver_to_slave(caller, peer, key_ids, self._clock.now(), accept)
        except KeyNotFound:
            if not self._owner_reachable(pair) and not all(keys.known(key_id) for key_id in key_ids):
                raise OwnerUnreachable(
                    "a key_ID is not known here and the KME that would know it cannot be reached; try again later"
                ) from None
            raise
