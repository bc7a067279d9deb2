"""SAEs at several key managers of one protected site that share keys (ETSI GS QKD 020): who is where. No I/O.

A group says what passes through this key manager, and which of its SAEs are behind which other one. Its master is an
SAE here, and then this key manager draws the keys and offers each other one what its own targets need; or the master
is behind another one, from which the keys come, for targets here, and to be passed on to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heliograph.errors import ConfigurationError
from heliograph.kme.etsi020_records import InterworkingError, Slug
from heliograph.protocol.audience import audience_members, audience_name

__all__ = ["ForeignGroup", "ForeignGroups", "Way"]


@dataclass(frozen=True, slots=True)
class Way:
    """Where a key's targets are: ``here``, and by the ID of the key manager that they are behind."""

    here: tuple[str, ...]
    legs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForeignGroup:
    """``slaves`` of ``master``; ``behind``: the KME ID of each that is no SAE of this key manager.

    ``stock``: keys that are kept ready if the master is here. Raises ConfigurationError.
    """

    master: str
    slaves: tuple[str, ...]
    behind: Mapping[str, str]
    stock: int = 0
    key_size_bits: int | None = None

    def __post_init__(self) -> None:
        saes = (self.master, *self.slaves)
        named = f"[etsi020] groups: {list(saes)}"
        if not self.slaves or len(set(saes)) != len(saes):
            raise ConfigurationError(f"{named}: a master and at least one slave, each once")
        if not self.behind.keys() & set(saes):
            raise ConfigurationError(f"{named}: all are SAEs of this key manager; that is a group of [kme]")
        if self.origin is not None and self.origin in self.way.legs:
            raise ConfigurationError(
                f"{named}: the master and a slave are both behind {self.origin}; a key is not passed back"
            )
        if self.origin is not None and self.stock:
            raise ConfigurationError(f"{named}: stock is for a master here; {self.master} is behind {self.origin}")

    @property
    def origin(self) -> str | None:
        """The key manager from which the keys come, None for this one."""
        return self.behind.get(self.master)

    @property
    def audience(self) -> str:
        """The slaves, as one name."""
        return audience_name(self.slaves)

    @property
    def here(self) -> tuple[str, ...]:
        """The SAEs of this key manager, the master among them."""
        return tuple(sae for sae in (self.master, *self.slaves) if sae not in self.behind)

    @property
    def way(self) -> Way:
        """Where the keys go."""
        legs: dict[str, tuple[str, ...]] = {}
        for slave in self.slaves:
            if slave in self.behind:
                legs[self.behind[slave]] = (*legs.get(self.behind[slave], ()), slave)
        return Way(tuple(slave for slave in self.slaves if slave not in self.behind), legs)


class ForeignGroups:
    """The declared groups. Raises ConfigurationError for one that comes twice."""

    def __init__(self, groups: Sequence[ForeignGroup]) -> None:
        self._groups = {(group.master, group.audience): group for group in groups}
        if len(self._groups) != len(groups):
            raise ConfigurationError("[etsi020] groups: a master has the same slaves twice; keep one")

    def find(self, peer: str, initiator: str, targets: Sequence[str]) -> ForeignGroup | None:
        """Return the group of exactly these targets, None if there is none whose keys come from ``peer``.

        Raises InterworkingError for targets to which they would be passed back.
        """
        group = self._groups.get((initiator, audience_name(targets)))
        found = [g for g in self._groups.values() if g.origin not in {None, peer} and g.master == initiator]
        if group is not None and group.origin == peer:
            return group
        if any(g.behind.get(sae) == peer for g in found for sae in set(targets) & set(audience_members(g.audience))):
            raise InterworkingError(Slug.KEY_ROUTING, "this key would have to be passed back to where it comes from")
        return None
