"""Who shares a key besides its master: one slave SAE, or a group of them, written as one name."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["audience_members", "audience_name"]

_BETWEEN = "\x1f"  # not printable, so in no SAE ID


def audience_name(slaves: Iterable[str]) -> str:
    """Return the name of a group of slave SAEs, the same for every order; one slave's name is its SAE ID."""
    return _BETWEEN.join(sorted(set(slaves)))


def audience_members(name: str) -> tuple[str, ...]:
    """Return the slave SAEs of an audience."""
    return tuple(name.split(_BETWEEN))
