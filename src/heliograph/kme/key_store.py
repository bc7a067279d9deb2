"""What a key supply needs of a store: keys that wait for SAEs, each of which leaves at most once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from heliograph.types import StoredKey

__all__ = ["Accept", "Issue", "KeyStore"]

Accept = Callable[[list[StoredKey]], object]
# Draws keys for a group of this site: master, audience, number, bytes of each, now, and who looks at them first.
Issue = Callable[[str, str, int, int, float, Accept], list[StoredKey]]


class KeyStore(Protocol):
    """Where allocated keys wait. A key leaves at most once; that it is gone is durable before the method returns.

    The first two arguments of each method name a pair of SAEs as ``StoredKey`` does. Raises StoreUnavailable.
    """

    def deliver_to_master(
        self,
        master: str,
        slave: str,
        number: int,
        now: float,
        *,
        keep: int = 0,
        since: float = float("-inf"),
        size_bytes: int | None = None,
        accept: Accept = list,
    ) -> list[StoredKey]:
        """Take the oldest keys that this site owns for the pair. Raises InsufficientKeys, taking none.

        ``keep`` keys of this size stay; none was made before ``since``; each has ``size_bytes``; ``accept`` looks at
        them before anything changes, one call at a time, and if it raises, they stay.
        """

    def deliver_to_slave(
        self, slave: str, master: str, key_ids: Sequence[str], now: float, accept: Accept = list
    ) -> list[StoredKey]:
        """Take the named keys that the peer's site owns, all or none. Raises KeyNotFound or NotPermitted.

        ``accept`` looks at them before anything changes; if it raises, they stay.
        """

    def check_held(self, slave: str, master: str, key_ids: Sequence[str]) -> None:
        """Return if ``deliver_to_slave`` would find these keys; raises as it does, and changes nothing."""

    def stored_key_count(self, master: str, slave: str, size_bytes: int | None = None) -> int:
        """Count what ``deliver_to_master`` could hand out now, of one size or of all."""

    def unfetched(self, master: str, audience: str) -> dict[str, int]:
        """Return how many keys drawn for a group of this site each of its slaves has still to fetch."""

    def known(self, key_id: str) -> bool:
        """Tell whether a key of that key_ID is or was in the store."""
