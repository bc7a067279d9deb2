"""What is known of the addresses that connections come from, and how many handshakes each may still cost. No I/O.

A handshake that ends without a proof has cost the server as much as one that ends with it. So each takes a token when
it begins, and only who proves a certificate, or a preshared key, gets it back. Addresses of which one was proved lately
have tokens of their own; all others share one supply, so that no number of strangers takes a token from the first.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final, TypeVar

from heliograph.kme.quotas import Bucket, Quota

__all__ = ["Sources", "source_of"]

# Our choices. A handshake without a proof takes some 0.6 ms of the server's processor, all in all.
STRANGERS: Final = Quota(16, 50)  # handshakes without a proof, at once and a second: of all strangers together
PROVED: Final = Quota(64, 50)  # of one address that proved a certificate lately
CONNECTS: Final = Quota(256, 100)  # handshakes of one caller that cost nothing; one more counts as without a proof
PROVED_S: Final = 3600.0  # "lately"
FAILED_S: Final = 60.0  # so long who failed comes after strangers who did not
_SOURCES_MAX: Final = 1024
_IPV6_PREFIX: Final = 64  # whoever has one address there has all of them

_Known = TypeVar("_Known")


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, an IPv6 network of 64 bits, or the text as it is."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))


class Sources:
    """Times are a monotonic clock's seconds. One for all doors of a process: it is one processor that they share."""

    def __init__(self) -> None:
        self._strangers = Bucket(STRANGERS.burst, 0.0)
        self._proved: OrderedDict[str, tuple[float, Bucket]] = OrderedDict()
        self._failed: OrderedDict[str, float] = OrderedDict()
        self._callers: OrderedDict[str, Bucket] = OrderedDict()

    def has_proved(self, source: str, now: float) -> bool:
        """Tell whether somebody from there proved a certificate lately."""
        known = self._proved.get(source)
        return known is not None and now - known[0] < PROVED_S

    def rank(self, source: str, now: float) -> int:
        """Return whose turn it is first: 0 proved lately, 1 nothing is known, 2 failed lately."""
        if self.has_proved(source, now):
            return 0
        return 2 if now - self._failed.get(source, float("-inf")) < FAILED_S else 1

    def may_begin(self, source: str, now: float) -> bool:
        """Tell whether there is a token for a handshake from there."""
        if self.has_proved(source, now):
            return self._proved[source][1].has(PROVED, now, 1)
        return self._strangers.has(STRANGERS, now, 1)

    def begin(self, source: str, now: float) -> Bucket:
        """Take a token; returns where it was taken from, for ``proved``."""
        bucket, quota = (
            (self._proved[source][1], PROVED) if self.has_proved(source, now) else (self._strangers, STRANGERS)
        )
        bucket.take(quota, now, 1)
        return bucket

    def proved(self, source: str, caller: str, taken: Bucket, now: float) -> None:
        """Note that a handshake ended with a proof: it has cost nothing, unless this caller comes all the time."""
        bucket = self._callers.setdefault(caller, Bucket(CONNECTS.burst, now))
        if bucket.take(CONNECTS, now, 1):
            taken.level += 1  # the next look at the bucket cuts it to the burst
        self._callers.move_to_end(caller)
        known = self._proved.get(source)
        self._proved[source] = now, known[1] if known is not None else Bucket(PROVED.burst, now)
        self._proved.move_to_end(source)
        self._failed.pop(source, None)
        _cut(self._callers)
        _cut(self._proved)

    def failed(self, source: str, now: float) -> None:
        """Note that a handshake ended without a proof."""
        if not self.has_proved(source, now):
            self._failed[source] = now
            self._failed.move_to_end(source)
            _cut(self._failed)


def _cut(known: OrderedDict[str, _Known]) -> None:
    while len(known) > _SOURCES_MAX:
        known.popitem(last=False)
