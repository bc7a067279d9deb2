"""Which sizes of keys a pair or group of SAEs has; each is a pool of its own, allocated with the block (ADR 0053)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from heliograph.kme.refusals import RequestRefused

__all__ = ["KeySizes", "read_extension", "size_names", "status_extension"]

_STORED = "heliograph_stored_by_size"


def size_names(sizes: tuple[int, ...]) -> str:
    """Return sizes in bits as a text for people, the smallest first."""
    *others, last = [str(size) for size in sorted(sizes)]
    return f"{', '.join(others)} and {last}" if others else last


@dataclass(frozen=True, slots=True)
class KeySizes:
    """``default``: bits of the keys of every pair that is not in ``named``, by (master, audience).

    Both sites have the same ones, or the link is refused: they are part of its registration.
    """

    default: int
    named: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)

    def of(self, master: str, audience: str) -> tuple[int, ...]:
        """Return the sizes in bits, first the one for whoever names none."""
        return self.named.get((master, audience), (self.default,))

    def choose(self, master: str, audience: str, asked: int | None) -> int:
        """Return the size of a request's keys. Raises RequestRefused for one that this pair does not have."""
        sizes = self.of(master, audience)
        if asked is None:
            return sizes[0]
        if asked not in sizes:
            raise RequestRefused(f"size is not supported; keys of {size_names(sizes)} bits are")
        return asked


def status_extension(stored: Mapping[int, int]) -> dict[str, object]:
    """Return the status_extension (ETSI GS QKD 014 6.1) that tells how many keys of each size are there."""
    return {_STORED: {str(size): number for size, number in stored.items()}}


def read_extension(extension: object) -> dict[int, int]:
    """Return what ``status_extension`` says, nothing if it is another key manager's: that may hold anything."""
    found = extension.get(_STORED) if isinstance(extension, dict) else None
    try:
        return {int(size): number for size, number in msgspec.convert(found, dict[str, int]).items()}
    except (msgspec.ValidationError, ValueError):
        return {}
