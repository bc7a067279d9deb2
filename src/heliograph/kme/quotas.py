"""How much one SAE may ask for: requests in time for each SAE, keys in time for each of its pairs.

Both are buckets that fill at a constant rate. They are counted in memory: a restart fills them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from heliograph.errors import ConfigurationError, InsufficientKeys
from heliograph.ports import Clock

__all__ = ["Bucket", "Quota", "Quotas", "TooManyRequests"]


class TooManyRequests(InsufficientKeys):
    """The SAE asked for more than its share; nothing was taken, try again later."""


@dataclass(frozen=True, slots=True)
class Quota:
    """``burst`` at once, and ``per_second`` in the long run. Raises ConfigurationError."""

    burst: float
    per_second: float

    def __post_init__(self) -> None:
        if not (1 <= self.burst <= 1e9 and 0 < self.per_second <= 1e9):
            raise ConfigurationError(
                f"a quota of {self.burst} at once and {self.per_second} a second: write 1 to 1e9, and above 0 to 1e9"
            )


@dataclass(slots=True)
class Bucket:
    """A bucket that fills at a constant rate. ``level``: what was in it at the time ``at``."""

    level: float
    at: float

    def has(self, quota: Quota, now: float, number: float) -> bool:
        """Fill it up to ``now`` and tell whether ``number`` is in it."""
        self.level = min(quota.burst, self.level + max(0.0, now - self.at) * quota.per_second)
        self.at = now
        return self.level >= number

    def take(self, quota: Quota, now: float, number: float) -> bool:
        """Take ``number`` out; False, and nothing taken, if it is not in it."""
        if not self.has(quota, now, number):
            return False
        self.level -= number
        return True


@dataclass
class Quotas:
    """``clock``: monotonic. ``requests``: of each SAE; ``keys``: of a pair (master, audience), where one is set."""

    clock: Clock
    requests: Quota | None = None
    keys: Mapping[tuple[str, str], Quota] = field(default_factory=dict)
    _buckets: dict[tuple[str, ...], Bucket] = field(default_factory=dict)
    _returned: deque[tuple[str, str, int]] = field(default_factory=deque)

    def follow(self, fresh: Quotas) -> None:
        """Use the quotas of ``fresh`` from now on; what has been taken stays taken."""
        self.requests, self.keys = fresh.requests, fresh.keys

    def admit(self, sae: str) -> None:
        """Count one request of a registered SAE. Raises TooManyRequests. One caller at a time."""
        requests = self.requests  # looked at once: ``follow`` may come in between
        if requests is not None and not self._take((sae,), requests, 1):
            raise TooManyRequests(
                f"this SAE may send {requests.per_second:g} requests a second in the long run; try again later"
            )

    def take(self, master: str, audience: str, number: int) -> None:
        """Count ``number`` keys before they are handed out. Raises TooManyRequests. One caller at a time."""
        while self._returned:
            *back, many = self._returned.popleft()
            if (bucket := self._buckets.get(tuple(back))) is not None:
                bucket.level += many  # ``_take`` cuts it to the burst
        quota = self.keys.get((master, audience))
        if quota is not None and not self._take((master, audience), quota, number):
            raise TooManyRequests(
                f"the quota of this pair of SAEs is {quota.burst:g} keys at once and {3600 * quota.per_second:g} an "
                "hour; try again later"
            )

    def give_back(self, master: str, audience: str, number: int) -> None:
        """Undo a ``take``: the keys were not handed out. May be called at any time, from any thread."""
        self._returned.append((master, audience, number))

    def most(self, master: str, audience: str) -> float:
        """Return how many keys of a pair can ever be had at once."""
        quota = self.keys.get((master, audience))
        return float("inf") if quota is None else quota.burst

    def _take(self, name: tuple[str, ...], quota: Quota, number: int) -> bool:
        now = self.clock.now()
        return self._buckets.setdefault(name, Bucket(quota.burst, now)).take(quota, now, number)
