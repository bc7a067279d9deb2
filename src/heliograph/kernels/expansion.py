"""A block's choices from one 32-byte seed: AES-256 in counter mode, addressed by slot, so any slot costs the same.

The transmitter's module draws the seed, the receiver's module draws another for its bases; only clicked slots are
ever expanded. Given the seed the choices are fixed; that they look uniform without it is a computational assumption
(security.md 6), and reports say so.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from heliograph.types import Basis, LightParameters, Marks, Pulses, Slots

__all__ = ["SEED_BYTES", "SeededPulses", "expand_bases"]

SEED_BYTES: Final = 32

# Our choice: eight bytes each, the upper half of the counter block; no two uses of one seed ever share a block.
_LABEL_LIGHT: Final = b"hg-light"
_LABEL_BASES: Final = b"hg-bases"

_SLOT_LIMIT: Final = 2**48  # the largest block of types.LightParameters
_WORD: Final = 2**32


@dataclass(frozen=True, slots=True, eq=False)
class SeededPulses:
    """What a seed makes the transmitter send: a ``types.PulseRecord`` of 32 bytes for any number of pulses.

    Raises ValueError unless ``seed`` has 32 bytes.
    """

    light: LightParameters
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_seed(self.seed)

    def at(self, slots: Slots) -> Pulses:
        """Return the choices at ``slots``, shape (n,), in any order. Raises ValueError outside [0, pulses).

        Words 0 and 1 of a slot's block choose basis and intensity by thresholds floor(p * 2^32), so a probability
        is met to 2^-32; the lowest bit of word 2 is the bit, exactly uniform.
        """
        words = _words(self.seed, _LABEL_LIGHT, slots, self.light.pulses)
        intensities = np.zeros(len(words), dtype=np.uint8)
        for cumulated in itertools.accumulate(self.light.intensity_probabilities[:-1]):
            intensities += words[:, 1] >= _threshold(cumulated)
        return Pulses(
            bases=_bases(words[:, 0], self.light.transmitter_z_probability),
            intensities=intensities,
            bits=(words[:, 2] & np.uint32(1)).astype(np.uint8),
        )


def expand_bases(seed: bytes, slots: Slots, z_probability: float) -> Marks:
    """Return the receiver's basis at each of ``slots`` (shape (n,), in [0, 2^48)), uint8 of ``types.Basis``.

    Raises ValueError for a seed that is not 32 bytes long or a slot out of range.
    """
    _check_seed(seed)
    return _bases(_words(seed, _LABEL_BASES, slots, _SLOT_LIMIT)[:, 0], z_probability)


def _words(seed: bytes, label: bytes, slots: Slots, limit: int) -> NDArray[np.uint32]:
    """Return four little-endian words for each slot: AES-256(seed, label || slot as eight big-endian bytes)."""
    if slots.ndim != 1 or slots.dtype != np.int64:
        raise ValueError(f"slots of shape {slots.shape} and type {slots.dtype}: one dimension of int64 is needed")
    if len(slots) and (slots.min() < 0 or slots.max() >= limit):
        raise ValueError(f"slots reach from {slots.min()} to {slots.max()}, outside [0, {limit})")
    counters = np.empty((len(slots), 2), dtype=">u8")
    counters[:, 0] = int.from_bytes(label, "big")
    counters[:, 1] = slots
    # ECB over distinct counter blocks is the keystream of counter mode; nothing is encrypted with it.
    cipher = Cipher(algorithms.AES(seed), modes.ECB())  # noqa: S305  - see above
    stream = cipher.encryptor().update(counters.data.cast("B") if len(slots) else b"")
    return np.frombuffer(stream, dtype="<u4").reshape(-1, 4)


def _bases(words: NDArray[np.uint32], z_probability: float) -> Marks:
    if not 0 < z_probability < 1:
        raise ValueError(f"z_probability = {z_probability}: must lie strictly between 0 and 1")
    return np.where(words < _threshold(z_probability), np.uint8(Basis.Z), np.uint8(Basis.X))


def _threshold(probability: float) -> int:
    return min(math.floor(probability * _WORD), _WORD)


def _check_seed(seed: bytes) -> None:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed of {len(seed)} bytes: {SEED_BYTES} are needed")
