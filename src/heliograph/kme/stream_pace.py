"""How fast key streams go, and whose turn it is when keys are scarce: Max_bps and Priority of ETSI GS QKD 004. No I/O.

Both are counted in memory: a restart forgets them. The standard defines neither; here

- Max_bps is the most bits of key in a second that GET_KEY gives one application of a stream, and 0 is no limit. A
  second's worth may come at once, or one chunk where that is more.
- Priority: a larger number goes first, among the streams of one pool of a pair whose keys this site owns. What a stream
  has asked for in vain is kept for it from those below, for as long as it keeps asking.
"""

from __future__ import annotations

from dataclasses import dataclass

from heliograph.kme.etsi004 import Qos
from heliograph.kme.quotas import Bucket, Quota
from heliograph.kme.stream_records import Stream
from heliograph.ports import Clock

__all__ = ["PATIENCE_S", "Pace", "Turns"]

# Our choice: for how long the keys that a stream asked for in vain are kept from those of a lower priority.
PATIENCE_S = 10.0


class Pace:
    """The rates of streams at one site."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[bytes, Bucket] = {}

    def may_have(self, stream: Stream) -> bool:
        """Tell whether a chunk now keeps the stream within its Max_bps."""
        quota = _quota(stream.qos)
        return quota is None or self._bucket(stream.ksid, quota).has(quota, self._clock.now(), _bits(stream.qos))

    def had(self, stream: Stream) -> None:
        """Count a chunk that was handed out."""
        quota = _quota(stream.qos)
        if quota is not None:
            self._bucket(stream.ksid, quota).take(quota, self._clock.now(), _bits(stream.qos))

    def forget(self, ksid: bytes) -> None:
        """Forget a stream that is over."""
        self._buckets.pop(ksid, None)

    def _bucket(self, ksid: bytes, quota: Quota) -> Bucket:
        return self._buckets.setdefault(ksid, Bucket(quota.burst, self._clock.now()))


def _bits(qos: Qos) -> int:
    return 8 * qos.key_chunk_size


def _quota(qos: Qos) -> Quota | None:
    # From 1e9 bit/s on there is no limit: no chunk of this site takes that long.
    return Quota(max(qos.max_bps, _bits(qos)), qos.max_bps) if 0 < qos.max_bps < 1e9 else None


@dataclass(frozen=True, slots=True)
class _Waiting:
    pool: tuple[str, str, int]
    priority: int
    keys: int
    until: float


class Turns:
    """Who waits for keys of which pair, and of which size in bytes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[bytes, _Waiting] = {}

    def kept(self, stream: Stream, key_bytes: int) -> int:
        """Return how many keys of the pool are kept for streams of a higher priority than this one."""
        now, pool = self._clock.now(), (stream.local_sae, stream.remote_sae, key_bytes)
        self._waiting = {ksid: each for ksid, each in self._waiting.items() if now < each.until}
        return sum(
            each.keys
            for ksid, each in self._waiting.items()
            if ksid != stream.ksid and each.pool == pool and each.priority > stream.qos.priority
        )

    def in_vain(self, stream: Stream, key_bytes: int, keys: int) -> None:
        """Note that a stream needed so many keys and they were not there."""
        pool = (stream.local_sae, stream.remote_sae, key_bytes)
        self._waiting[stream.ksid] = _Waiting(pool, stream.qos.priority, keys, self._clock.now() + PATIENCE_S)

    def served(self, ksid: bytes) -> None:
        """Note that a stream has what it needed, or is over."""
        self._waiting.pop(ksid, None)
