"""How a site runs its end of a link, and what the link asks of the rest of the site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LinkPlan", "SupplyHooks"]


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """How this site runs its end. ``dial`` or ``listen`` is (host, port); exactly one is given.

    ``in_flight``: blocks at once; ``doubtful_max``: blocks in doubt before no new one starts (security.md 3);
    ``keys_max``: deliverable keys at which the link rests.
    """

    site: str
    is_transmitter: bool
    dial: tuple[str, int] | None
    listen: tuple[str, int] | None
    in_flight: int = 2
    doubtful_max: int = 4
    keys_max: int = 20_000


@dataclass(frozen=True, slots=True)
class SupplyHooks:
    """What the link asks of the site's store beyond its own records.

    ``deliverable_keys`` counts; ``probe`` raises StoreUnavailable unless a block's worth of bytes can be written;
    ``destroy_all`` destroys every pad and key after a rollback (security.md 4).
    """

    deliverable_keys: Callable[[], int]
    probe: Callable[[], None]
    destroy_all: Callable[[], None]
