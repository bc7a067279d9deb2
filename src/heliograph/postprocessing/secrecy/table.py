"""The table of optimised light: which intensities and probabilities suit a block size and a loss.

``table.toml`` beside this file is written by ``tools/optimise_parameters.py``. It advises only: thresholds and length
are computed for the link at hand, so a poor choice costs key and never secrecy.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from heliograph.errors import ConfigurationError

__all__ = ["LightChoice", "TableEntry", "entries", "look_up", "reach_db"]


@dataclass(frozen=True, slots=True)
class LightChoice:
    """What the transmitter varies: mean photons of signal and decoy, share of signals, share of the Z basis.

    With two decoys also the share of the first decoy and the mean photons of the weakest; both None with one.
    """

    signal: float
    decoy: float
    signal_probability: float
    z_probability: float
    decoy_probability: float | None = None
    weakest: float | None = None

    def __post_init__(self) -> None:
        if (self.decoy_probability is None) != (self.weakest is None):
            raise ConfigurationError("light: decoy_probability and weakest belong together: give both, or neither")

    @property
    def decoys(self) -> int:
        """How many decoys."""
        return 1 if self.weakest is None else 2

    @property
    def intensities(self) -> tuple[float, ...]:
        """Mean photons per pulse, signal first."""
        return (self.signal, self.decoy) if self.weakest is None else (self.signal, self.decoy, self.weakest)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The share of each intensity; the last is what the others leave."""
        if self.decoy_probability is None:
            return (self.signal_probability, 1 - self.signal_probability)
        left = 1 - self.signal_probability - self.decoy_probability
        return (self.signal_probability, self.decoy_probability, left)


@dataclass(frozen=True, slots=True)
class TableEntry:
    """The best light found for one block size (sifted bits of both bases) and one loss; with it, what it earned."""

    target_bits: int
    loss_db: float
    light: LightChoice
    pulses: int
    secret_key_length: int


@cache
def entries(decoys: int = 1) -> tuple[TableEntry, ...]:
    """Return the table for so many decoys, by block size and then by loss; what gave no key has no entry."""
    document = tomllib.loads(resources.files(__package__).joinpath("table.toml").read_text(encoding="utf-8"))
    return tuple(
        TableEntry(
            target_bits=row["target_bits"],
            loss_db=row["loss_db"],
            light=LightChoice(
                row["signal"],
                row["decoy"],
                row["signal_probability"],
                row["z_probability"],
                row.get("decoy_probability"),
                row.get("weakest"),
            ),
            pulses=row["pulses"],
            secret_key_length=row["secret_key_length"],
        )
        for row in document["entries"]
        if row.get("decoys", 1) == decoys
    )


def look_up(target_bits: int, loss_db: float, decoys: int = 1) -> TableEntry:
    """Return the entry of the nearest size (by ratio) and, in it, of the nearest loss."""
    size = _nearest_size(target_bits, decoys)
    return min((e for e in entries(decoys) if e.target_bits == size), key=lambda e: abs(e.loss_db - loss_db))


def reach_db(target_bits: int, decoys: int = 1) -> float:
    """Return the largest listed loss at which a block of about this size gave a key with the default detectors."""
    size = _nearest_size(target_bits, decoys)
    return max(e.loss_db for e in entries(decoys) if e.target_bits == size)


def _nearest_size(target_bits: int, decoys: int) -> int:
    return min({e.target_bits for e in entries(decoys)}, key=lambda size: abs(math.log(size / target_bits)))
