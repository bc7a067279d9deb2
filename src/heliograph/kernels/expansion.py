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

from heliograph.kernels.cascade import Kernel
from heliograph.kernels.native import compiled
from heliograph.types import Basis, LightParameters, Marks, Pulses, Slots

__all__ = ["SEED_BYTES", "SeededPulses", "expand_bases", "keystream", "light_thresholds", "threshold"]

SEED_BYTES: Final = 32

# Our choice: eight bytes each, the upper half of the counter block; no two uses of one seed ever share a block.
_LABEL_LIGHT: Final = int.from_bytes(b"hg-light", "big")
_LABEL_BASES: Final = int.from_bytes(b"hg-bases", "big")

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

    def at(self, slots: Slots, *, kernel: Kernel | None = None) -> Pulses:
        """Return the choices at ``slots``, shape (n,), in any order. Raises ValueError outside [0, pulses).

        Words 0 and 1 of a slot's block choose basis and intensity by thresholds floor(p * 2^32), so a probability
        is met to 2^-32; the lowest bit of word 2 is the bit, exactly uniform.
        """
        _check_slots(slots, self.light.pulses)
        z, thresholds = threshold(self.light.transmitter_z_probability), light_thresholds(self.light)
        if kernel != "numpy" and compiled is not None and compiled.aes_level():
            parts = compiled.expand(self.seed, np.ascontiguousarray(slots), z, thresholds)
            bases, intensities, bits = (np.frombuffer(part, dtype=np.uint8) for part in parts)
            return Pulses(bases=bases, intensities=intensities, bits=bits)
        words = keystream(self.seed, _LABEL_LIGHT, slots).view("<u4")
        intensities = np.zeros(len(words), dtype=np.uint8)
        for limit in thresholds:
            intensities += words[:, 1] >= limit
        return Pulses(
            bases=_bases(words[:, 0], z),
            intensities=intensities,
            bits=(words[:, 2] & np.uint32(1)).astype(np.uint8),
        )


def expand_bases(seed: bytes, slots: Slots, z_probability: float, *, kernel: Kernel | None = None) -> Marks:
    """Return the receiver's basis at each of ``slots`` (shape (n,), in [0, 2^48)), uint8 of ``types.Basis``.

    Raises ValueError for a seed that is not 32 bytes long or a slot out of range.
    """
    _check_seed(seed)
    _check_slots(slots, _SLOT_LIMIT)
    if not 0 < z_probability < 1:
        raise ValueError(f"z_probability = {z_probability}: must lie strictly between 0 and 1")
    if kernel != "numpy" and compiled is not None and compiled.aes_level():
        bases = compiled.expand(seed, np.ascontiguousarray(slots), threshold(z_probability), None)[0]
        return np.frombuffer(bases, dtype=np.uint8)
    return _bases(keystream(seed, _LABEL_BASES, slots).view("<u4")[:, 0], threshold(z_probability))


def keystream(seed: bytes, high: int, low: Slots) -> NDArray[np.uint64]:
    """Return two words for each of ``low``, shape (n, 2): AES-256(seed, high || low), eight big-endian bytes each."""
    counters = np.empty((len(low), 2), dtype=">u8")
    counters[:, 0] = high
    counters[:, 1] = low
    # ECB over distinct counter blocks is the keystream of counter mode; nothing is encrypted with it.
    cipher = Cipher(algorithms.AES(seed), modes.ECB())  # noqa: S305  - see above
    stream = cipher.encryptor().update(counters.data.cast("B") if len(low) else b"")
    return np.frombuffer(stream, dtype="<u8").reshape(-1, 2)


def light_thresholds(light: LightParameters) -> NDArray[np.uint64]:
    """Return the thresholds between the intensities, cumulated, for 32-bit words."""
    cumulated = itertools.accumulate(light.intensity_probabilities[:-1])
    return np.array([threshold(p) for p in cumulated], dtype=np.uint64)


def threshold(probability: float) -> int:
    """Return the number of 32-bit words below which one happens with this probability, to 2^-32."""
    return min(math.floor(probability * _WORD), _WORD)


def _check_slots(slots: Slots, limit: int) -> None:
    if slots.ndim != 1 or slots.dtype != np.int64:
        raise ValueError(f"slots of shape {slots.shape} and type {slots.dtype}: one dimension of int64 is needed")
    if len(slots) and (slots.min() < 0 or slots.max() >= limit):
        raise ValueError(f"slots reach from {slots.min()} to {slots.max()}, outside [0, {limit})")


def _bases(words: NDArray[np.uint32], z: int) -> Marks:
    return np.where(words < z, np.uint8(Basis.Z), np.uint8(Basis.X))


def _check_seed(seed: bytes) -> None:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed of {len(seed)} bytes: {SEED_BYTES} are needed")
