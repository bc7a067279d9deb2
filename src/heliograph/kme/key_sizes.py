"""Which sizes of keys a pair or group of SAEs has; each is a pool of its own, allocated with the block (ADR 0053)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from heliograph.kme.refusals import RequestRefused

__all__ = ["KeySizes", "read_extension", "size_names", "status_extension"]

_STORED = "heliograph_stored_by_size"
_UNFETCHED = "heliograph_unfetched"
_NAMES = (_STORED, _UNFETCHED)


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


def status_extension(stored: Mapping[int, int], unfetched: Mapping[str, int]) -> dict[str, object]:
    """Return the status_extension (ETSI GS QKD 014 6.1): keys of each size, and how many which slave has left."""
    found: dict[str, object] = {}
    if stored:
        found[_STORED] = {str(size): number for size, number in stored.items()}
    if unfetched:
        found[_UNFETCHED] = dict(unfetched)
    return found


def read_extension(extension: object) -> tuple[dict[int, int], dict[str, int]]:
    """Return what ``status_extension`` says, nothing if it is another key manager's: that may hold anything."""
    stored, unfetched = ((_numbers(extension.get(n)) if isinstance(extension, dict) else {}) for n in _NAMES)
    try:
        return {int(size): number for size, number in stored.items()}, unfetched
    except ValueError:
        return {}, unfetched


def _numbers(found: object) -> dict[str, int]:
    try:
        return msgspec.convert(found, dict[str, int])
    except msgspec.ValidationError:
        return {}
