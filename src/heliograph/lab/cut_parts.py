"""What a rehearsal of partitions asks of the parts that it cuts from each other, and what it may find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, Self

from heliograph.lab.cutting_relay import CuttingRelay

__all__ = ["CutParts", "Findings", "errors_in", "twice"]


@dataclass
class Findings:
    """``fetched``: keys that both sides of a pair of SAEs have; ``burnt``: taken, and the answer died in a cut.

    Of the tunnel: ``payloads``: that crossed whole; ``closed``: times that nothing could be sent for want of a fresh
    key; ``outlived_s``: the longest time that the responder could send under a key which the initiator had given up for
    its age, at most the initiator's patience with its key manager. The rest must not be: keys that came twice; other
    bytes at the other end, or unknown there; moments at which an end sent under a key that the other one did not hold;
    moments at which data crossed that no key was young enough for; bytes of the payload in what was recorded between
    the ends; internal errors in logs and statuses.
    """

    fetched: int = 0
    burnt: int = 0
    payloads: int = 0
    closed: int = 0
    outlived_s: float = 0.0
    duplicates: int = 0
    disagreements: int = 0
    under_unknown_key: int = 0
    under_old_key: int = 0
    bytes_in_clear: int = 0
    log_errors: int = 0

    def add(self, other: Findings) -> None:
        """Take what was found elsewhere."""
        for each in fields(Findings):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def harmless(self) -> bool:
        """Whether nothing happened that must not."""
        wrong = self.duplicates + self.disagreements + self.under_unknown_key + self.under_old_key
        return not (wrong + self.bytes_in_clear + self.log_errors)


class CutParts(Protocol):
    """Parts with relays between them. ``relays``: by pair; ``not_cut``: pairs that are absent here, and why."""

    @property
    def relays(self) -> Mapping[str, Sequence[CuttingRelay]]:
        """The relays between the parts of each pair; those of one pair are cut together or one alone."""

    @property
    def not_cut(self) -> Mapping[str, str]:
        """Pairs that are not there, and why."""

    @property
    def watched_by_tcp(self) -> Collection[str]:
        """Pairs that leave it to TCP to notice a silent peer: not to be seen here, since a relay answers for it."""

    @property
    def fetched(self) -> int:
        """Keys that both sides have."""

    async def start(self) -> Self:
        """Start everything. Raises HeliographError if it does not start."""

    async def more(self, pair: str) -> None:
        """Wait until the pair's service did what it could not have done in a cut. Waits for ever if it cannot."""

    async def close(self) -> None:
        """End everything; may be called twice."""

    def findings(self) -> Findings:
        """Return what was found, once everything has ended."""


def twice(lists: Iterable[Sequence[str]]) -> int:
    """Count what came again within one list."""
    return sum(count - 1 for one in lists for count in Counter(one).values())


def errors_in(logs: Iterable[Path]) -> int:
    """Count internal errors and tracebacks in logs."""
    texts = [log.read_text(errors="replace") for log in logs if log.exists()]
    return sum(text.count(word) for text in texts for word in ("Traceback", "internal error", "never retrieved"))
