"""The supply of a site that hands its keys out itself, as its configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from heliograph.kme.groups import SaeGroup
from heliograph.kme.key_sizes import KeySizes
from heliograph.kme.supply import Issue, KeyStore, Limits, SaePair, Supply
from heliograph.ports import Clock
from heliograph.site.config import SiteConfig
from heliograph.site.supply_plan import SupplyPlan, plan_quotas, reserve_of

__all__ = ["key_sizes", "make_supply"]


def make_supply(
    config: SiteConfig,
    keys: KeyStore,
    clocks: tuple[Clock, Clock],
    link_is_up: Callable[[str], bool],
    beside: Sequence[SaePair] = (),
    issue: Issue | None = None,
    further: Mapping[str, KeyStore] | None = None,
) -> Supply:
    """Return it. ``clocks``: monotonic, and the one that stamps keys; ``beside``: pairs that need no link.

    ``further``: the stores of the further links by name; ``link_is_up`` is asked by name, empty for the first.
    Raises ConfigurationError.
    """
    kme, plan = config.file.kme, config.supply()
    elsewhere = frozenset(beside)
    limits = Limits(
        key_size_bits=config.registration.key_size_bits,
        max_key_count=config.file.link.keys_max,
        max_key_per_request=kme.max_key_per_request,
        reserve=reserve_of(kme, streams=config.file.etsi004 is not None),
        further_counts={view.link_name: view.file.link.keys_max for view in config.further},
    )
    return Supply(
        keys,
        kme.id,
        [*plan.pairs, *beside],
        limits,
        clocks[1],
        owner_reachable=lambda pair: pair in elsewhere or link_is_up(pair.link),
        groups=[*plan.groups, *_foreign_groups(config)],
        issue=issue,
        quotas=plan_quotas(kme, clocks[0]),
        sizes=key_sizes(config, plan),
        further=further,
    )


def _foreign_groups(config: SiteConfig) -> list[SaeGroup]:
    """Return the groups over other key managers to which an SAE of this site belongs; one slave is no group."""
    entry = config.file.etsi020
    declared = entry.foreign_groups() if entry else ()
    return [SaeGroup(g.master, g.slaves, frozenset(g.here)) for g in declared if g.here and len(g.slaves) > 1]


def key_sizes(config: SiteConfig, plan: SupplyPlan) -> KeySizes:
    """Return the sizes of all keys that this site hands out, those of other key managers' pairs included."""
    entry = config.file.etsi020
    declared = [pair for peer in entry.peers for pair in peer.pairs] if entry else []
    named = {
        names: (pair.key_size_bits,)
        for pair in declared
        if pair.key_size_bits is not None
        for names in ((pair.local, pair.foreign), (pair.foreign, pair.local))
    }
    for group in entry.foreign_groups() if entry else ():
        if group.key_size_bits is not None:
            named[group.master, group.audience] = (group.key_size_bits,)
    return KeySizes(plan.sizes.default, {**plan.sizes.named, **named})
