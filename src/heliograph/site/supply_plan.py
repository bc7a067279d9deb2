"""Which SAEs of a site may have keys, with whom, and how many: read from the registration and the site file.

[kme]
key_ttl_s = 604800.0             # keys older than this are erased; left out: they stay until nobody needs the room
requests_per_s = 50.0            # of each SAE, in the long run; left out: as many as the queue takes
request_burst = 100              # and at once
reserve = 8                      # keys of each pair kept for messages between the key managers
quotas = [{ master = "sae-a", slaves = ["sae-b"], keys_per_hour = 60.0, burst = 8 }]
groups = [{ master = "sae-a", slaves = ["sae-a2"], key_sizes = [256, 512] }]   # SAEs of this site that share keys
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.kme.groups import Groups, SaeGroup
from heliograph.kme.key_sizes import KeySizes
from heliograph.kme.quotas import Quota, Quotas
from heliograph.kme.supply import SaePair
from heliograph.ports import Clock
from heliograph.protocol.audience import audience_name
from heliograph.protocol.registration import LinkRegistration, check_key_sizes

__all__ = [
    "GroupEntry",
    "KmeEntry",
    "QuotaEntry",
    "SupplyPlan",
    "check_quotas",
    "plan_link",
    "plan_quotas",
    "plan_supply",
    "reserve_of",
]

RESERVE = 8  # our choice: four messages between key managers


class GroupEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SAEs of this site that share keys, drawn at this site; ``key_sizes`` in bits, the link's if left out."""

    master: str
    slaves: list[str]
    key_sizes: list[int] = []


class QuotaEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many keys the master of a pair, or of a group, may take."""

    master: str
    slaves: list[str]
    keys_per_hour: float
    burst: int


class KmeEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The site file's [kme]."""

    id: str
    peer_id: str
    listen: str
    certificate: str
    key: str
    ca: str
    max_key_per_request: int = 128
    key_ttl_s: float | None = None
    requests_per_s: float | None = None
    request_burst: int = 100
    reserve: int | None = None
    quotas: list[QuotaEntry] = []
    groups: list[GroupEntry] = []

    def check(self) -> None:
        """Raise ConfigurationError for what contradicts itself."""
        if self.id == self.peer_id:
            raise ConfigurationError(f"[kme] id and peer_id are both {self.id!r}: name the other site's KME")
        if not 1 <= self.max_key_per_request <= 1024:
            raise ConfigurationError(f"[kme] max_key_per_request = {self.max_key_per_request}: between 1 and 1024")
        if self.key_ttl_s is not None and not 60 <= self.key_ttl_s <= 1e9:
            raise ConfigurationError(f"[kme] key_ttl_s = {self.key_ttl_s}: between 60 and 1e9 seconds")
        if not 1 <= self.request_burst <= 1_000_000_000:  # looked at without requests_per_s too: it may come later
            raise ConfigurationError(f"[kme] request_burst = {self.request_burst}: between 1 and 1000000000")
        if self.reserve is not None and not 0 <= self.reserve <= 1024:
            raise ConfigurationError(f"[kme] reserve = {self.reserve}: between 0 and 1024 keys")


@dataclass(frozen=True, slots=True)
class SupplyPlan:
    """``pairs`` and ``groups`` of this site's SAEs; ``stocks``: (master, audience, owner here) of every entry.

    ``sizes``: of the keys of each.
    """

    pairs: tuple[SaePair, ...]
    groups: tuple[SaeGroup, ...]
    stocks: tuple[tuple[str, str, bool], ...]
    saes: frozenset[str]
    sizes: KeySizes


def plan_supply(kme: KmeEntry, registration: LinkRegistration, *, is_transmitter: bool) -> SupplyPlan:
    """Return who may have keys at a site of one link. Raises ConfigurationError."""
    plan = plan_link(kme, registration, is_transmitter=is_transmitter)
    check_quotas(kme, plan)
    return plan


def plan_link(kme: KmeEntry, registration: LinkRegistration, *, is_transmitter: bool, link: str = "") -> SupplyPlan:
    """Return who may have keys of one link; ``link``: its name, empty for a site's first. Raises ConfigurationError."""
    own, peer = registration.transmitter_pairs, registration.receiver_pairs
    if not is_transmitter:
        own, peer = peer, own
    pairs, groups = set[tuple[str, str]](), list[SaeGroup]()
    for entry, owner_here in [(e, True) for e in own] + [(e, False) for e in peer]:
        there = {entry.slave, *entry.also_there}
        here = {entry.master, *entry.also_here}
        local, remote = (here, there) if owner_here else (there, here)
        # A slave here and the master, or a slave, there: the master's side of a pair is the only one that matters.
        pairs |= {(a, b) for a in local for b in remote if entry.master in {a, b}}
        if entry.is_group:
            slaves = (entry.slave, *entry.also_there, *entry.also_here)
            groups.append(SaeGroup(entry.master, slaves, frozenset(local), link))
    local_groups = [SaeGroup(g.master, tuple(g.slaves), frozenset((g.master, *g.slaves))) for g in kme.groups]
    away = {remote for _, remote in pairs}
    for group in local_groups:
        if elsewhere := group.here & away:
            raise ConfigurationError(f"[kme] groups: SAE {min(elsewhere)!r} is at the other site")
    stocks = [(e.master, e.audience, True) for e in own] + [(e.master, e.audience, False) for e in peer]
    stocks += [(g.master, g.audience, True) for g in local_groups]
    Groups((*groups, *local_groups))
    named = {(e.master, e.audience): e.key_sizes for e in (*own, *peer) if e.key_sizes}
    for declared, group in zip(kme.groups, local_groups, strict=True):
        if declared.key_sizes:
            check_key_sizes(f"[kme] groups: key_sizes of master {group.master!r}", tuple(declared.key_sizes))
            named[group.master, group.audience] = tuple(declared.key_sizes)
    sizes = KeySizes(registration.key_size_bits, named)
    saes = {local for local, _ in pairs} | {name for g in (*groups, *local_groups) for name in g.here}
    plan = tuple(SaePair(local, remote, kme.peer_id, link) for local, remote in sorted(pairs))
    return SupplyPlan(plan, (*groups, *local_groups), tuple(stocks), frozenset(saes), sizes)


def check_quotas(kme: KmeEntry, plan: SupplyPlan) -> None:
    """Refuse a quota of nobody. Raises ConfigurationError."""
    owned = {(master, audience) for master, audience, here in plan.stocks if here}
    for quota in kme.quotas:
        if (quota.master, audience_name(quota.slaves)) not in owned:
            raise ConfigurationError(
                f"[kme] quotas: master {quota.master!r} with slaves {quota.slaves} is no pair or group whose keys this "
                "site hands out; correct or remove it"
            )


def plan_quotas(kme: KmeEntry, clock: Clock) -> Quotas:
    """Return the quotas of the site file. Raises ConfigurationError."""
    entry = "requests_per_s and request_burst"
    try:
        requests = None if kme.requests_per_s is None else Quota(kme.request_burst, kme.requests_per_s)
        entry = "quotas"
        keys = {(q.master, audience_name(q.slaves)): Quota(q.burst, q.keys_per_hour / 3600) for q in kme.quotas}
    except ConfigurationError as error:
        raise ConfigurationError(f"[kme] {entry}: {error}") from None
    if len(keys) != len(kme.quotas):
        raise ConfigurationError("[kme] quotas: a pair or group has two quotas; keep one")
    return Quotas(clock, requests, keys)


def reserve_of(kme: KmeEntry, *, streams: bool) -> int:
    """Return how many keys of each pair no SAE is given; ``streams``: whether the key managers write to each other."""
    if kme.reserve is not None:
        return kme.reserve
    return RESERVE if streams else 0
