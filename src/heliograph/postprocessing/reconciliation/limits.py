"""The caps on one block's reconciliation, and the parities of one message."""

from __future__ import annotations

from dataclasses import dataclass

from heliograph.bits import BitString
from heliograph.errors import RemoteProtocolError

__all__ = ["Limits", "unpack_parities"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard caps (security.md 1); both sides hold the same, no message changes them.

    ``parities``: most parities in each direction; ``rounds``: most messages in each.
    """

    parities: int
    rounds: int = 20_000

    def __post_init__(self) -> None:
        if self.parities < 1 or self.rounds < 1:
            raise ValueError(f"{self}: at least 1 parity and 1 round are needed")


def unpack_parities(data: bytes, count: int) -> BitString:
    """Return ``count`` parities. Raises RemoteProtocolError for a wrong size or bits beyond the last parity."""
    try:
        return BitString(data, count)
    except ValueError as error:
        raise RemoteProtocolError(f"a message of {count} parities is malformed: {error}") from error
