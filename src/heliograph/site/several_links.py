"""Several links at one site: what keeps them apart, and who may have the keys of which (ADR 0054)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from heliograph.authentication.anchors.book_marks import BookMarks
from heliograph.errors import ConfigurationError
from heliograph.kme.key_sizes import KeySizes
from heliograph.site.link_entry import LinkEntry, ModuleEntry
from heliograph.site.supply_plan import SupplyPlan

__all__ = ["LinkPlace", "check_apart", "check_books_apart", "merge_plans"]


@dataclass(frozen=True, slots=True)
class LinkPlace:
    """Where a link is: ``name`` as registered, its ``peer`` and that site's key manager, and the files of its own."""

    name: str
    peer: str
    peer_id: str
    entry: LinkEntry
    module: ModuleEntry
    files: Mapping[str, Path]


def check_apart(places: Sequence[LinkPlace]) -> None:
    """Refuse two links that would share what only one may have. Raises ConfigurationError."""
    if any(not place.name.strip() for place in places[1:]):
        raise ConfigurationError("[[further_links]]: a registration's link has no name; plan it anew, with a name")
    _once(places, lambda place: place.name, "the same name; each registration has its own")
    _once(places, lambda place: place.entry.listen, "the same listen; each needs a port of its own")
    _once(places, lambda place: _device(place.module), "the same module; each needs a device of its own")
    _check_files(places)
    for one in places:
        for other in places:
            if (one.peer == other.peer) != (one.peer_id == other.peer_id):
                raise ConfigurationError(
                    f"links {one.name!r} and {other.name!r} lead to {one.peer!r} and {other.peer!r}, and their peer_id "
                    f"are {one.peer_id!r} and {other.peer_id!r}: each site has one key manager"
                )


def _once(places: Sequence[LinkPlace], what: Callable[[LinkPlace], Hashable], said: str) -> None:
    seen: dict[Hashable, str] = {}
    for place in places:
        value = what(place)
        if value is not None and value in seen:
            raise ConfigurationError(f"links {seen[value]!r} and {place.name!r} have {said}")
        seen[value] = place.name


def _device(module: ModuleEntry) -> Any:  # noqa: ANN401  - bytes, which compare as the settings do
    return msgspec.json.encode(module, order="sorted")


def _check_files(places: Sequence[LinkPlace]) -> None:
    seen: dict[Path, tuple[str, str]] = {}
    for place in places:
        anchor = place.files["anchor"]
        for what, path in {
            **place.files,
            "anchor": anchor,
            "anchor.runs": anchor.with_name(f"{anchor.name}.runs"),
        }.items():
            if path in seen:
                whose, its = seen[path]
                raise ConfigurationError(
                    f"link {place.name!r}: {what} = {str(path)!r} is the {its} of link {whose!r}: each link has its own"
                )
            seen[path] = place.name, what
    for place in places:
        for other in places:
            if place.files["anchor"].parent == other.files["store"].parent:
                raise ConfigurationError(
                    f"link {place.name!r}: anchor = {str(place.files['anchor'])!r}: keep it outside the directory and "
                    f"backup of the store of link {other.name!r}"
                )


def check_books_apart(books: Mapping[str, BookMarks | None]) -> None:
    """Refuse one key book behind two links, by name: its pads would be used once on each. Raises ConfigurationError."""
    seen: dict[str, str] = {}
    for link, marks in books.items():
        for mark in () if marks is None else (marks.header, *marks.slots):
            if seen.setdefault(mark, link) != link:
                raise ConfigurationError(
                    f"links {seen[mark]!r} and {link!r} have copies of one key book: a pad would be used on both; "
                    "destroy it, make and carry a book for each link, then register both again"
                )


def merge_plans(plans: Sequence[SupplyPlan]) -> SupplyPlan:
    """Return who may have keys over any of the links, the first one first; of one plan, the plan itself.

    Two SAEs share the keys of one link: else a site could not tell which key a key_ID means, nor which link's epsilon
    and assurance a consumer gets. Raises ConfigurationError.
    """
    if len(plans) == 1:
        return plans[0]
    _check_saes(plans)
    named: dict[tuple[str, str], tuple[int, ...]] = {}
    for plan in plans:
        couples = [(p.local_sae, p.remote_sae) for p in plan.pairs]
        couples += [(remote, local) for local, remote in couples]
        couples += [(master, audience) for master, audience, _ in plan.stocks]
        named |= {couple: plan.sizes.of(*couple) for couple in couples}
    return SupplyPlan(
        tuple(pair for plan in plans for pair in plan.pairs),
        tuple(group for plan in plans for group in plan.groups),
        tuple(stock for plan in plans for stock in plan.stocks),
        frozenset().union(*(plan.saes for plan in plans)),
        KeySizes(plans[0].sizes.default, named),
    )


def _check_saes(plans: Sequence[SupplyPlan]) -> None:
    here = frozenset[str]().union(*(plan.saes for plan in plans))
    where: dict[str, str] = {}
    links: dict[frozenset[str], int] = {}
    for number, plan in enumerate(plans):
        for pair in plan.pairs:
            if pair.remote_sae in here:
                raise ConfigurationError(
                    f"SAE {pair.remote_sae!r}: at this site by one registration and at the site of {pair.remote_kme!r} "
                    "by another; an SAE is at one site"
                )
            if where.setdefault(pair.remote_sae, pair.remote_kme) != pair.remote_kme:
                raise ConfigurationError(
                    f"SAE {pair.remote_sae!r}: at {where[pair.remote_sae]!r} by one registration and at "
                    f"{pair.remote_kme!r} by another; an SAE is at one site"
                )
        couples = {frozenset((pair.local_sae, pair.remote_sae)) for pair in plan.pairs}
        couples |= {frozenset((group.master, slave)) for group in plan.groups for slave in group.slaves}
        for couple in couples:
            if links.setdefault(couple, number) != number:
                one, other = sorted(couple)
                raise ConfigurationError(
                    f"SAEs {one!r} and {other!r} are registered with two links: a pair has the keys of one; take them "
                    "out of one of the two registrations, at both sites"
                )
