"""The pre-filter: drops junk before it costs an attempt, a pad or a parse (security.md 2).

Each frame on a connection carries HMAC-SHA-256, cut to 128 bits, over a frame counter and the frame, under a key used
for nothing else. Passing grants nothing; failing is silent. Whoever breaks it gains denial of service only.
"""

from __future__ import annotations

import hashlib
import hmac

from heliograph.errors import LocalProtocolError

__all__ = ["FILTER_TAG_BYTES", "FrameFilter", "connection_key"]

FILTER_TAG_BYTES = 16


def connection_key(epoch_key: bytes, transcript: bytes) -> bytes:
    """Derive one direction's key for one connection from the epoch's key and the handshake's exact bytes."""
    if len(epoch_key) != 32:
        raise LocalProtocolError("a pre-filter key has 32 bytes")
    return hmac.new(epoch_key, b"heliograph/1 prefilter" + transcript, hashlib.sha256).digest()


class FrameFilter:
    """One direction of one connection. A frame is accepted once, at its place."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._counter = 0

    def _tag(self, frame: bytes) -> bytes:
        mac = hmac.new(self._key, self._counter.to_bytes(8, "big"), hashlib.sha256)
        mac.update(frame)
        return mac.digest()[:FILTER_TAG_BYTES]

    def seal(self, frame: bytes) -> bytes:
        """Return the frame with its filter tag and advance the counter."""
        sealed = frame + self._tag(frame)
        self._counter += 1
        return sealed

    def open(self, sealed: bytes) -> bytes | None:
        """Return the frame, or None for junk, which changes nothing."""
        frame, tag = sealed[:-FILTER_TAG_BYTES], sealed[-FILTER_TAG_BYTES:]
        if not hmac.compare_digest(self._tag(frame), tag):
            return None
        self._counter += 1
        return frame
