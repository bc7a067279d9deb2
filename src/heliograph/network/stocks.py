"""Which paths are taken: those with the most key left, as far as their hops have told; and what each link has paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heliograph.errors import InsufficientKeys
from heliograph.network.letters import Hop
from heliograph.network.topology import Path, describe

__all__ = ["ASSURANCES", "VENDOR", "PathBook", "cost_per_bit", "weakest"]

# Our choices: a path that failed is left alone for a while, longer each time.
_BACKOFF_S, _BACKOFF_MAX_S = 1.0, 60.0
_DOUBTED_S = 60.0  # and for so long after that, others are taken before it
VENDOR = "vendor's claim"
# From the weakest to the strongest: a vendor's word is not measured here at all.
ASSURANCES = (VENDOR, "computational", "information-theoretic since the bootstrap", "information-theoretic")


@dataclass
class _Known:
    stock: int | None = None
    failures: int = 0
    not_before: float = 0.0
    told: str = ""


@dataclass
class PathBook:
    """What an origin has learnt about its paths. Nothing of it decides about secrecy."""

    _paths: dict[Path, _Known] = field(default_factory=dict)

    def choose(self, paths: Sequence[Path], number: int, local: Mapping[str, int], now: float) -> tuple[Path, ...]:
        """Return the ``number`` paths with the most key at their scarcest hop; a path never tried counts as full.

        Paths that failed lately come last, the more often the later.

        ``local``: keys left here by neighbour; ``now``: seconds. Raises InsufficientKeys if too few may be tried.
        """
        usable = [path for path in paths if self._known(path).not_before <= now]
        if len(usable) < number:
            wait = min((self._known(path).not_before for path in paths if path not in usable), default=now) - now
            raise InsufficientKeys(f"{len(usable)} of {number} paths may be tried now; the next one in {wait:.0f} s")

        def rank(path: Path) -> tuple[int, float]:
            known = self._known(path)
            # Else a path that lies and one that was blamed with it would be taken together again, and others never.
            doubts = known.failures if now < known.not_before + _DOUBTED_S else 0
            return doubts, -min(local.get(path[1], 0), float("inf") if known.stock is None else known.stock)

        # Sorting keeps the order of the configuration among equals.
        return tuple(sorted(usable, key=rank)[:number])

    def succeeded(self, path: Path, hops: Sequence[Hop]) -> None:
        """Note what the hops after the first one told."""
        known = self._known(path)
        known.failures, known.not_before, known.told = 0, 0.0, ""
        known.stock = min((hop.stock for hop in hops[1:] if hop.stock >= 0), default=None)

    def failed(self, path: Path, why: str, now: float) -> None:
        """Leave the path alone for a while."""
        known = self._known(path)
        known.not_before = now + min(_BACKOFF_MAX_S, _BACKOFF_S * 2**known.failures)
        known.failures, known.stock, known.told = min(known.failures + 1, 16), None, why

    def report(self) -> dict[str, str]:
        """Return what is known of each path, in words."""
        return {describe(path): self._words(known) for path, known in self._paths.items()}

    def _known(self, path: Path) -> _Known:
        return self._paths.setdefault(path, _Known())

    @staticmethod
    def _words(known: _Known) -> str:
        if known.failures:
            return f"failed {known.failures} times: {known.told}"
        return "open" if known.stock is None else f"open, {known.stock} keys at its scarcest hop"


def weakest(hops: Sequence[Hop]) -> str:
    """Return the assurance of keys that crossed these hops: that of the weakest one; what is unknown is a vendor's."""
    found = [ASSURANCES.index(hop.assurance) if hop.assurance in ASSURANCES else 0 for hop in hops]
    return ASSURANCES[min(found, default=0)]


def cost_per_bit(paid: Mapping[str, int], delivered: int) -> dict[str, float]:
    """Return the bits of each link that one bit of key cost; nothing before the first key."""
    return {link: bits / delivered for link, bits in sorted(paid.items())} if delivered else {}
