"""Groups: one key for a master SAE and several slaves, or for SAEs of one key manager (ETSI GS QKD 014 Annex B).

A group is registered like a pair, never made up by a request: with the link, so that its keys are allocated to all of
its SAEs when a block is committed (security.md 8), or in the site file when all of its SAEs are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from heliograph.errors import ConfigurationError
from heliograph.protocol.audience import audience_name

__all__ = ["LOCAL_UNFETCHED_MAX", "Groups", "SaeGroup", "name_slaves"]

LOCAL_UNFETCHED_MAX = 4096  # our choice: keys drawn for one group of this site that its slaves have not fetched


def name_slaves(unfetched: Mapping[str, int]) -> str:
    """Return the slaves with how many keys each has left, who has left most first, as a text for people."""
    return ", ".join(f"{sae} {number}" for sae, number in sorted(unfetched.items(), key=lambda of: (-of[1], of[0])))


@dataclass(frozen=True, slots=True)
class SaeGroup:
    """``slaves`` of ``master``; ``here``: which of them all are SAEs of this site. Raises ConfigurationError.

    ``link``: which further link carries their keys; empty for the first, and for keys that are drawn here.
    """

    master: str
    slaves: tuple[str, ...]
    here: frozenset[str]
    link: str = ""

    def __post_init__(self) -> None:
        names = (self.master, *self.slaves)
        sound = all(name.strip() and name.isprintable() for name in names)
        if not self.slaves or len(set(names)) != len(names) or not sound or not self.here <= set(names):
            raise ConfigurationError(
                f"group of SAEs {list(names)}: a master and at least one slave, each once, none blank"
            )

    @property
    def local(self) -> bool:
        """Whether all SAEs are at this site; then the keys are drawn here."""
        return len(self.here) == 1 + len(self.slaves)

    @property
    def audience(self) -> str:
        """The slaves, as one name."""
        return audience_name(self.slaves)


class Groups:
    """The groups that SAEs of this site belong to. Raises ConfigurationError for one that comes twice."""

    def __init__(self, groups: Iterable[SaeGroup]) -> None:
        self._groups: dict[tuple[str, str], SaeGroup] = {}
        for group in groups:
            if (group.master, group.audience) in self._groups:
                raise ConfigurationError(f"group of SAEs {[group.master, *group.slaves]}: registered twice; keep one")
            self._groups[group.master, group.audience] = group

    def __iter__(self) -> Iterator[SaeGroup]:
        return iter(self._groups.values())

    def find(self, master: str, slaves: Iterable[str]) -> SaeGroup | None:
        """Return the group of exactly these slaves, in any order."""
        named = tuple(slaves)
        group = self._groups.get((master, audience_name(named)))
        # Compared one by one: an SAE ID may hold what separates the members of an audience's name.
        return group if group is not None and set(group.slaves) == set(named) else None

    def with_slave(self, master: str, slave: str) -> SaeGroup | None:
        """Return the group of ``master`` with ``slave`` that has the most slaves, None if there is none."""
        found = [g for g in self._groups.values() if g.master == master and slave in g.slaves]
        return max(found, key=lambda g: len(g.slaves), default=None)

    def here(self) -> set[str]:
        """Return the SAEs of this site that are in a group."""
        return {name for group in self._groups.values() for name in group.here}
