"""What an agent asks of an encryptor, whichever it is: the built-in one, or a program that people already have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from heliograph.consumer.keys import TunnelKeys

__all__ = ["Encryptor", "EncryptorReport"]


@dataclass(frozen=True, slots=True)
class EncryptorReport:
    """A snapshot. ``sending``: a generation may be sent under now; ``since``: when its key was fetched.

    Counts that an encryptor does not have are 0. ``alarm``: what an operator must look at, in one line.
    """

    key_id: bytes | None
    since: float
    sending: bool
    live_connections: int = 0
    completed_connections: int = 0
    sent_records: int = 0
    sent_bytes: int = 0
    received_records: int = 0
    received_bytes: int = 0
    refused_records: int = 0
    cut_connections: int = 0
    turned_away: int = 0
    pad_bytes_left: int | None = None
    alarm: str | None = None


class Encryptor(Protocol):
    """Two-phase: ``install`` accepts under new keys, ``activate`` sends under them, ``retire`` forgets them.

    A method that raises EncryptorUnavailable did nothing that could be sent under; the agent tries again. An encryptor
    whose orders are carried out later says so by ``holds``, and tells the agent when a key is in place.
    """

    async def start(self) -> None:
        """Begin, with no key. Raises ConfigurationError."""

    async def close(self) -> None:
        """End, and forget every key."""

    def install(self, keys: TunnelKeys, since: float) -> None:
        """Accept under these keys, fetched at ``since``."""

    def activate(self, key_id: bytes) -> None:
        """Send under this installed generation."""

    def drain(self, key_id: bytes) -> None:
        """Tell the agent when nothing can come under this generation any more."""

    def retire(self, key_id: bytes) -> None:
        """Forget this generation: nothing is sent or accepted under it."""

    def seen(self, key_id: bytes) -> bool:
        """Whether this key was installed before."""

    def holds(self, key_id: bytes) -> bool:
        """Whether this key is in place: not before may the peer be told that it is ready, or to change."""

    def check(self) -> None:
        """Look whether the data plane follows; called now and then."""

    def report(self) -> EncryptorReport:
        """Return a snapshot."""
