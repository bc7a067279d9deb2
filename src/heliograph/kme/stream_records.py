"""Records of key streams (ETSI GS QKD 004), where they are kept, and what a site promises about them. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from heliograph.errors import ConfigurationError
from heliograph.kme import stream_messages as m
from heliograph.kme.etsi004 import JSON, Qos
from heliograph.kme.one_time import AttemptStore
from heliograph.kme.stream_pools import nearest_chunk

__all__ = ["Chunk", "Missing", "Opening", "Stream", "StreamPolicy", "StreamStore"]


@dataclass(frozen=True, slots=True)
class Stream:
    """A registered stream as one site knows it. ``owner_here``: ``source`` is an application of this site."""

    ksid: bytes
    local_sae: str
    remote_sae: str
    source: str
    destination: str
    qos: Qos
    owner_here: bool
    created_at: float
    opened_here: bool = False
    opened_there: bool = False
    closed_here: bool = False
    closed_there: bool = False
    next_index: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk that waits. ``material``: only at the owner; ``agreed``: the other site has acknowledged it."""

    index: int
    key_ids: tuple[str, ...]
    agreed: bool
    at: float
    material: bytes = field(default=b"", repr=False)


class StreamStore(AttemptStore, Protocol):
    """Durable records of streams, and of attempts on the keys of messages about them. Raises StoreUnavailable."""

    def forget_attempts(self, before: float) -> None:
        """Drop the counts of keys that nobody tried since ``before``."""

    def find(self, ksid: bytes) -> Stream | None:
        """Return a stream."""

    def save(self, stream: Stream) -> None:
        """Insert or replace a stream."""

    def add_chunks(self, ksid: bytes, chunks: list[Chunk], next_index: int) -> None:
        """Add chunks and move the stream's end, in one step."""

    def chunk(self, ksid: bytes, index: int) -> Chunk | None:
        """Return a chunk without its material."""

    def chunks(self, ksid: bytes) -> list[Chunk]:
        """Return all chunks that wait, by index, without their material."""

    def agree(self, ksid: bytes, indices: list[int]) -> None:
        """Mark chunks as acknowledged by the other site."""

    def take(self, ksid: bytes, index: int) -> bytes:
        """Erase a chunk durably, then return its material. Raises KeyNotFound if it is gone."""

    def drop(self, ksid: bytes) -> list[Chunk]:
        """Erase all chunks of a stream and return what they were."""

    def forget(self, ksid: bytes) -> None:
        """Erase a stream."""

    def all(self) -> list[Stream]:
        """Return every stream."""


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """What this site promises to applications; the caps of the negotiation. Raises ConfigurationError."""

    promised_bps: int
    chunk_bytes_max: int = 1024
    timeout_ms_max: int = 60_000
    ttl_s_max: int = 86_400
    streams_max: int = 64  # of one SAE

    def __post_init__(self) -> None:
        if min(self.promised_bps, self.chunk_bytes_max, self.timeout_ms_max) < 0 or self.ttl_s_max < 1:
            raise ConfigurationError("[etsi004] limits must not be negative, and streams live at least a second")

    def negotiate(self, asked: Qos, key_sizes: Sequence[int]) -> Qos:
        """Return what can be promised: ``asked`` itself, or the counter-proposal.

        ``key_sizes``: of the pair's keys in bytes, first the one for whoever names none.
        """
        low = min(asked.min_bps, self.promised_bps)
        return replace(
            asked,
            key_chunk_size=nearest_chunk(asked.key_chunk_size, self.chunk_bytes_max, key_sizes),
            min_bps=low,
            max_bps=max(asked.max_bps, low) if asked.max_bps else 0,
            timeout_ms=min(asked.timeout_ms, self.timeout_ms_max),
            ttl_s=min(max(asked.ttl_s, 1), self.ttl_s_max),
            mimetype=asked.mimetype if asked.mimetype in {"", JSON} else JSON,
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """An OPEN_CONNECT under way: ``message`` goes to the other key manager, its answer to ``finish_open``."""

    stream: Stream
    message: m.Opening
    is_new: bool
    wait_ms: int


@dataclass(frozen=True, slots=True)
class Missing:
    """A chunk that is not there yet. The owner reserves, the other site asks the owner to."""

    stream: Stream
    index: int
