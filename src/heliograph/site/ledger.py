"""Adds up a link's public figures, from the store at the start and from each block as it is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from heliograph.protocol.actions import Collect, Discard, Emit, Persist
from heliograph.protocol.records import (
    BlockReport,
    CommittedLocal,
    DecidedCommit,
    ObeyedCommit,
    PeerAcknowledged,
)
from heliograph.protocol.session import BlockAction

__all__ = ["Figures", "LinkLedger"]


@dataclass(slots=True)
class Figures:
    """Sums over accepted blocks; ``pulses`` also of those that were discarded, since they took link time too."""

    blocks: int = 0
    sifted_bits: int = 0
    key_errors: int = 0
    key_detections: int = 0
    test_errors: int = 0
    test_detections: int = 0
    disclosed_bits: int = 0
    secret_key_bits: int = 0
    pulses: int = 0
    double_clicks: int = 0

    def add(self, report: Mapping[str, object]) -> None:
        """Add one block's report."""
        key, test, disclosed = (report[name] for name in ("key", "test", "disclosed"))
        assert isinstance(key, Mapping)
        assert isinstance(test, Mapping)
        assert isinstance(disclosed, Mapping)
        self.blocks += 1
        self.sifted_bits += _int(report["sifted_bits"])
        self.key_errors += sum(key["errors"])
        self.key_detections += sum(key["detections"])
        self.test_errors += sum(test["errors"])
        self.test_detections += sum(test["detections"])
        self.disclosed_bits += _int(disclosed["parities_a"])
        self.secret_key_bits += _int(report["secret_key_length"])
        self.double_clicks += _int(report["double_clicks"])


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


@dataclass(slots=True)
class LinkLedger:
    """Watches a session's actions; it sees reports, never bits."""

    figures: Figures = field(default_factory=Figures)
    last_discard: str = ""
    _open: dict[int, BlockReport] = field(default_factory=dict)
    _light: dict[int, int] = field(default_factory=dict)

    def recall(self, report: Mapping[str, object]) -> None:
        """Add a block that was accepted before this start; what was discarded then is not known any more."""
        self.figures.add(report)
        self.figures.pulses += _int(report["pulses"])

    def observe(self, item: BlockAction) -> None:
        """Take note of an action that was carried out."""
        match item.action:
            case Persist(CommittedLocal(block=block, report=report) | DecidedCommit(block=block, report=report)):
                self._open[block] = report
            case Persist(ObeyedCommit(block=block) | PeerAcknowledged(block=block)):
                if (known := self._open.pop(block, None)) is not None:
                    self.figures.add(asdict(known))
                self.figures.pulses += self._light.pop(block, 0)
            case Emit(parameters) | Collect(parameters):
                self._light[item.block] = parameters.light.pulses
            case Discard(reason, cause):
                self._open.pop(item.block, None)
                self.figures.pulses += self._light.pop(item.block, 0)
                self.last_discard = f"{cause}: {reason}"
            case _:
                pass
