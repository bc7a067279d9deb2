"""Handing keys over between two key managers of one protected site (ETSI GS QKD 020), both ends. No I/O.

A key that was offered counts as assigned at the other side until that side proves otherwise: only 400 and 401 prove
that it was not taken over. Anything else, silence included, means: offer the same key again, or void it; never give it
to somebody else. The initiator's SAE can fetch a key only once all of its targets are known to have it.

    offered --202 or 200--> assigned --"relayed"--> relayed
    offered --400, 401--> dead (voiding, if an earlier offer went unanswered)
    offered, assigned --too long--> voiding --answer--> dead

So it goes with each key manager that a key is offered to. When all have relayed it, it goes into this site's supply;
or, if it came from another key manager to be passed on, that one is told. When one has not, the others void it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from heliograph.errors import ConfigurationError, HeliographError, KeySupplyError, NotPermitted
from heliograph.kme import etsi020
from heliograph.kme.etsi020_records import ACK_ITEMS_MAX, Ack, AckStatus, ExtKeys, InterworkingError, Slug, Void
from heliograph.kme.foreign_groups import ForeignGroup, ForeignGroups, Way
from heliograph.kme.key_sizes import size_names
from heliograph.kme.supply import Supply
from heliograph.ports import Clock
from heliograph.protocol.audience import audience_name

__all__ = ["ForeignKeyStore", "Interworking", "InterworkingPeer", "read_offer_answer", "read_void_answer"]


class ForeignKeyStore(Protocol):
    """Where keys of other key managers are remembered; every method is durable when it returns, or changed nothing."""

    def take(self, peer: str, request: ExtKeys, way: Way, now: float) -> None:
        """Hold all keys for their targets, or none. A repeated request changes nothing. Raises InterworkingError."""

    def holds(self, peer: str, key_ids: Sequence[str]) -> bool:
        """Tell whether one of these keys was taken from ``peer`` before."""

    def void(self, peer: str, request: Void, now: float) -> dict[str, AckStatus | None]:
        """Destroy keys that were not delivered yet, and refuse them should they come later; None: not known yet.

        Raises InterworkingError where that cannot be told.
        """

    def acknowledged(self, peer: str, acks: Sequence[Ack], now: float) -> None:
        """Take the peer's word about keys that were offered to it, all or none. Raises InterworkingError."""

    def answered(self, key_ids: Sequence[str]) -> None:
        """Note that the peer has the answer about these keys already: none is owed to its callback."""


@dataclass(frozen=True, slots=True)
class InterworkingPeer:
    """Another key manager of this site. ``url``: its https origin, the only place that callbacks go to."""

    kme_id: str
    url: str

    def __post_init__(self) -> None:
        if not self.url.startswith("https://") or self.url.count("/") != 2 or len(self.url) == len("https://"):
            raise ConfigurationError(f"[etsi020] url = {self.url!r}: write https://host:port, without a path")

    def check_callback(self, callback: str | None) -> None:
        """Return if answers may go to ``callback``. Raises InterworkingError: nobody else names our destinations."""
        if callback is not None and not (callback.startswith(f"{self.url}/") and callback.isprintable()):
            raise InterworkingError(Slug.MISSING_PARAMETERS, f"ack_callback_url is not below {self.url}, as declared")


class Interworking:
    """The receiving side of the four methods. ``synchronous``: requests without a callback are served too.

    ``pairs``: an SAE here and one behind another KME, for keys that no further SAE gets; None: all of the supply's.
    """

    def __init__(
        self,
        store: ForeignKeyStore,
        supply: Supply,
        peers: Sequence[InterworkingPeer],
        clock: Clock,
        *,
        synchronous: bool = False,
        groups: Sequence[ForeignGroup] = (),
        pairs: Collection[tuple[str, str]] | None = None,
    ) -> None:
        self._store = store
        self._supply = supply
        self._peers: Mapping[str, InterworkingPeer] = {peer.kme_id: peer for peer in peers}
        self._clock = clock
        self._synchronous = synchronous
        self._groups, self._pairs = ForeignGroups(groups), pairs

    def declare(
        self,
        peers: Sequence[InterworkingPeer],
        *,
        synchronous: bool,
        groups: Sequence[ForeignGroup] = (),
        pairs: Collection[tuple[str, str]] | None = None,
    ) -> None:
        """Know these peers, groups and pairs from now on and no other."""
        self._groups, self._pairs = ForeignGroups(groups), pairs
        self._peers, self._synchronous = {peer.kme_id: peer for peer in peers}, synchronous

    def peer(self, kme_id: str) -> InterworkingPeer:
        """Return the declared peer. Raises NotPermitted."""
        found = self._peers.get(kme_id)
        if found is None:
            raise NotPermitted("this KME is no declared peer")
        return found

    def versions(self) -> bytes:
        """Return the answer to GET versions."""
        return etsi020.versions_document(synchronous=self._synchronous)

    def ext_keys(self, kme_id: str, body: bytes) -> tuple[int, bytes]:
        """Take keys over; return HTTP status and body. Raises HeliographError; only then was no key taken."""
        peer = self.peer(kme_id)
        request = etsi020.read_ext_keys(body)
        try:
            way = self._admitted(peer, request)
        except InterworkingError as why:
            if not self._store.holds(kme_id, [key.key_id for key in request.keys]):
                raise
            # Taken before what is declared has changed: 400 would be the proof that it was not. The sender voids it.
            raise InterworkingError(Slug.SERVER, f"a key was taken over before: void it; {why}") from None
        self._store.take(kme_id, request, way, self._clock.now())
        if request.callback is not None:
            return 202, b""
        key_ids = tuple(key.key_id for key in request.keys)
        self._store.answered(key_ids)
        return 200, etsi020.acks_document([Ack(key_ids, AckStatus.RELAYED, request.initiator, request.targets)])

    def _admitted(self, peer: InterworkingPeer, request: ExtKeys) -> Way:
        self._check_mode(peer, request.callback)
        way = self._way(peer, request)
        if way.legs and request.callback is None:
            raise InterworkingError(
                Slug.MISSING_PARAMETERS, "ack_callback_url is missing: a target is behind another KME, which takes time"
            )
        return way

    def void(self, kme_id: str, body: bytes) -> tuple[int, bytes]:
        """Void keys; return HTTP status and body. Raises HeliographError."""
        peer = self.peer(kme_id)
        request = etsi020.read_void(body)
        self._check_mode(peer, request.callback)
        fates = self._store.void(kme_id, request, self._clock.now())
        if request.callback is not None:
            return 202, b""
        self._store.answered(tuple(fates))
        known = {key_id: fate for key_id, fate in fates.items() if fate is not None}  # without a callback: all
        return 200, etsi020.acks_document(_grouped(known, request))

    def ack(self, kme_id: str, body: bytes) -> tuple[int, bytes]:
        """Take acknowledgements; return HTTP status and body. Raises HeliographError; then none was acted on."""
        self.peer(kme_id)
        self._store.acknowledged(kme_id, etsi020.read_acks(body), self._clock.now())
        return 200, b""

    def _check_mode(self, peer: InterworkingPeer, callback: str | None) -> None:
        if callback is None and not self._synchronous:
            raise InterworkingError(
                Slug.MISSING_PARAMETERS, "ack_callback_url is missing: the synchronous mode is not served here"
            )
        peer.check_callback(callback)

    def _way(self, peer: InterworkingPeer, request: ExtKeys) -> Way:
        """Return where the keys go. Raises InterworkingError, with proof that none of them was taken."""
        group = self._groups.find(peer.kme_id, request.initiator, request.targets)
        if group is None:
            self._check_pair(peer, request)
        way = Way(request.targets) if group is None else group.way
        if group is not None and group.key_size_bits is not None:
            sizes: tuple[int, ...] = (group.key_size_bits,)
        else:
            sizes = self._supply.key_sizes(request.initiator, audience_name(request.targets))
        if any(8 * len(key.value) not in sizes for key in request.keys):
            raise InterworkingError(
                Slug.MISSING_PARAMETERS, f"keys of {size_names(sizes)} bits are taken here, no others"
            )
        return way

    def _check_pair(self, peer: InterworkingPeer, request: ExtKeys) -> None:
        if len(request.targets) != 1:
            # The text suggests 503, which would leave the sender in doubt.
            raise InterworkingError(
                Slug.KEY_ROUTING,
                "these SAEs are declared as no group of keys from the calling KME",
                name="no_route_multiple_targets",
            )
        try:
            pair = self._supply.authorise(request.targets[0], request.initiator)
        except KeySupplyError:
            pair = None
        # Two SAEs of a group may talk to their key manager about each other; that makes them no pair.
        declared = self._pairs is None or (request.targets[0], request.initiator) in self._pairs
        if pair is None or pair.remote_kme != peer.kme_id or not declared:
            raise InterworkingError(
                Slug.KEY_ROUTING,
                "no such pair of SAEs is declared between the two key managers",
                name="target_sae_id_not_recognized",
            )


def _grouped(fates: Mapping[str, AckStatus], request: Void) -> list[Ack]:
    found = []
    for status in AckStatus:
        key_ids = tuple(key_id for key_id, fate in fates.items() if fate is status)
        for first in range(0, len(key_ids), ACK_ITEMS_MAX):
            part = key_ids[first : first + ACK_ITEMS_MAX]
            found.append(Ack(part, status, request.initiator, request.targets))
    return found


def read_offer_answer(status: int | None, body: bytes) -> bool | list[Ack]:
    """Read what came back for an offer, None for no answer in time.

    Returns False when the keys were proved not to be taken, True when they count as assigned, or the synchronous
    answer. What cannot be read proves nothing: assigned.
    """
    if status in {400, 401}:
        return False
    return _acks(body) if status == 200 else True


def read_void_answer(status: int | None, body: bytes) -> bool | list[Ack]:
    """Read what came back for a void request: the synchronous answer, True for 202, False to ask again."""
    if status == 200:
        return _acks(body) or False
    return status == 202


def _acks(body: bytes) -> bool | list[Ack]:
    try:
        return etsi020.read_acks(body)
    except HeliographError:
        return True
