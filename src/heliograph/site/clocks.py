"""The two clocks of a running site. Neither decides safety."""

from __future__ import annotations

import time

__all__ = ["MonotonicClock", "WallClock"]


class MonotonicClock:
    """For limits inside one run."""

    def now(self) -> float:
        """Return seconds since an arbitrary origin."""
        return time.monotonic()


class WallClock:
    """For stamps that outlive a run."""

    def now(self) -> float:
        """Return seconds since 1970."""
        return time.time()
