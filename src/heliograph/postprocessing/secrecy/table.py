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

__all__ = ["LightChoice", "TableEntry", "entries", "look_up", "reach_db"]


@dataclass(frozen=True, slots=True)
class LightChoice:
    """What the transmitter varies: mean photons of signal and decoy, share of signals, share of the Z basis."""

    signal: float
    decoy: float
    signal_probability: float
    z_probability: float


@dataclass(frozen=True, slots=True)
class TableEntry:
    """The best light found for one block size (sifted bits of both bases) and one loss; with it, what it earned."""

    target_bits: int
    loss_db: float
    light: LightChoice
    pulses: int
    secret_key_length: int


@cache
def entries() -> tuple[TableEntry, ...]:
    """Return the whole table, by block size and then by loss; sizes and losses without key have no entry."""
    document = tomllib.loads(resources.files(__package__).joinpath("table.toml").read_text(encoding="utf-8"))
    return tuple(
        TableEntry(
            target_bits=row["target_bits"],
            loss_db=row["loss_db"],
            light=LightChoice(row["signal"], row["decoy"], row["signal_probability"], row["z_probability"]),
            pulses=row["pulses"],
            secret_key_length=row["secret_key_length"],
        )
        for row in document["entries"]
    )


def look_up(target_bits: int, loss_db: float) -> TableEntry:
    """Return the entry of the nearest size (by ratio) and, in it, of the nearest loss."""
    size = _nearest_size(target_bits)
    return min((e for e in entries() if e.target_bits == size), key=lambda e: abs(e.loss_db - loss_db))


def reach_db(target_bits: int) -> float:
    """Return the largest listed loss at which a block of about this size gave a key with the default detectors."""
    size = _nearest_size(target_bits)
    return max(e.loss_db for e in entries() if e.target_bits == size)


def _nearest_size(target_bits: int) -> int:
    return min({e.target_bits for e in entries()}, key=lambda size: abs(math.log(size / target_bits)))
