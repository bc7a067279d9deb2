"""The facts of the system: frozen records, one type for each stage of a key's life.

    PulseRecord | DetectionRecord -> SiftedBlock -> ReconciledBlock -> VerifiedBlock
        -> SecretKey -> StoredKey -> DeliveredKey

A stage takes exactly the record of the stage before it, so the type checker, not a status flag, keeps the order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NewType, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString

__all__ = [
    "Acceptance",
    "Basis",
    "BlockId",
    "BlockParameters",
    "DeliveredKey",
    "DetectionRecord",
    "Disclosed",
    "EstablishedKey",
    "IntensityCounts",
    "LightParameters",
    "Marks",
    "PulseRecord",
    "Pulses",
    "ReconciledBlock",
    "SecretKey",
    "SiftedBlock",
    "Slots",
    "StoredKey",
    "VerifiedBlock",
]

Slots = NDArray[np.int64]
Marks = NDArray[np.uint8]
BlockId = NewType("BlockId", int)


class Basis(IntEnum):
    """Z is the key basis, X the test basis (Rusca et al. 2018)."""

    Z = 0
    X = 1


@dataclass(frozen=True, slots=True)
class LightParameters:
    """What the transmitter sends in one block; fixed and authenticated before the first pulse (security.md 1).

    ``intensities`` are mean photon numbers per pulse, strictly descending; ``intensity_probabilities`` sum to 1;
    both bases use the same intensities and probabilities. Raises ValueError if contradictory.
    """

    pulses: int
    clock_hz: float
    intensities: tuple[float, ...]
    intensity_probabilities: tuple[float, ...]
    transmitter_z_probability: float
    receiver_z_probability: float

    def __post_init__(self) -> None:
        if not 1 <= self.pulses < 2**48:
            raise ValueError(f"pulses = {self.pulses}: a block has between 1 and 2^48 pulses")
        if not (math.isfinite(self.clock_hz) and self.clock_hz > 0):
            raise ValueError(f"clock_hz = {self.clock_hz}: must be positive")
        pairs = zip(self.intensities, self.intensities[1:], strict=False)
        if not self.intensities or not all(math.isfinite(k) and k >= 0 for k in self.intensities):
            raise ValueError(f"intensities = {self.intensities}: must be finite and not negative")
        if not all(a > b for a, b in pairs):
            raise ValueError(f"intensities = {self.intensities}: must be strictly descending")
        if len(self.intensity_probabilities) != len(self.intensities):
            raise ValueError("intensity_probabilities: one for each intensity is needed")
        if not all(0 < p <= 1 for p in self.intensity_probabilities):
            raise ValueError(f"intensity_probabilities = {self.intensity_probabilities}: must lie in (0, 1]")
        if abs(math.fsum(self.intensity_probabilities) - 1) > 1e-9:
            raise ValueError(f"intensity_probabilities = {self.intensity_probabilities}: must sum to 1")
        for name, p in (
            ("transmitter_z_probability", self.transmitter_z_probability),
            ("receiver_z_probability", self.receiver_z_probability),
        ):
            if not 0 < p < 1:
                raise ValueError(f"{name} = {p}: must lie strictly between 0 and 1")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The acceptance set of a fixed-length protocol (security.md 5): outside it the block is discarded.

    ``single_photons_lower_min``: least acceptable lower bound on single-photon key-basis detections;
    ``phase_error_upper_max``: greatest acceptable upper bound on their phase error rate;
    ``disclosed_bits_max``: cap on lambda_EC, the parity bits charged;
    ``sifted_bits_max``: cap on the sifted key, so that work and memory are bounded.
    """

    single_photons_lower_min: float
    phase_error_upper_max: float
    disclosed_bits_max: int
    sifted_bits_max: int


@dataclass(frozen=True, slots=True)
class BlockParameters:
    """Everything about a block that is fixed before its first pulse. Both sites hold it in their registration.

    ``theorem`` names what the length rests on; records from before there was a choice mean the first one.
    """

    name: str
    light: LightParameters
    acceptance: Acceptance
    secret_key_length: int
    eps_sec: float
    eps_cor: float
    theorem: str = "wiesemann2024"


@dataclass(frozen=True, slots=True)
class Pulses:
    """The transmitter's choices at some slots; three arrays of one length. ``intensities`` are indices."""

    bases: Marks
    intensities: Marks
    bits: Marks = field(repr=False)


class PulseRecord(Protocol):
    """What the transmitter prepared in a block; lazy, since only clicked slots are ever looked at."""

    @property
    def light(self) -> LightParameters:
        """The parameters the light was made with."""

    def at(self, slots: Slots) -> Pulses:
        """Return the choices at ``slots`` (shape (n,), each in [0, pulses))."""


@dataclass(frozen=True, slots=True)
class DetectionRecord:
    """What the receiver measured: one entry for each accepted click, none for a loss.

    ``slots`` strictly ascending; ``bases`` and ``bits`` of the same length. A double click has a random bit from the
    receiver's own randomness (security.md 9) and is counted in ``double_clicks``; clicks while a detector was dead
    are not in the record, ``dead_time_clicks`` counts them.
    """

    light: LightParameters
    slots: Slots
    bases: Marks
    bits: Marks = field(repr=False)
    double_clicks: int
    dead_time_clicks: int


@dataclass(frozen=True, slots=True)
class IntensityCounts:
    """Detections and errors in one basis, one entry for each intensity in the order of ``LightParameters``."""

    detections: tuple[int, ...]
    errors: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.detections) != len(self.errors):
            raise ValueError("detections and errors need the same number of intensities")
        for n, m in zip(self.detections, self.errors, strict=True):
            if not 0 <= m <= n:
                raise ValueError(f"{m} errors in {n} detections cannot be")

    @property
    def error_rate(self) -> float:
        """Errors per detection over all intensities; 0 without detections."""
        total = sum(self.detections)
        return sum(self.errors) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Disclosed:
    """Bits about the key that crossed the public channel. It only grows: there is no subtraction.

    ``parities_a``: parities sent by the transmitter's site; ``parities_b``: those the receiver's site sent or let be
    inferred by what it asked; ``verification``: bits of the verification hash (security.md 5).
    """

    parities_a: int = 0
    parities_b: int = 0
    verification: int = 0

    def __add__(self, other: Disclosed) -> Disclosed:
        return Disclosed(
            self.parities_a + other.parities_a,
            self.parities_b + other.parities_b,
            self.verification + other.verification,
        )


@dataclass(frozen=True, slots=True)
class SiftedBlock:
    """Key-basis bits where both bases agree, in slot order, and the test-basis counts, exact.

    ``intensities``: shape (n,), index of each key bit's intensity; public.
    """

    bits: BitString
    intensities: Marks
    test: IntensityCounts


@dataclass(frozen=True, slots=True)
class ReconciledBlock:
    """The receiver's bits corrected towards the transmitter's. ``key`` holds exact key-basis errors.

    ``zeros``/``errors_given_0`` and ``ones``/``errors_given_1`` count the transmitter's 0s and 1s and the receiver's
    errors in each.
    """

    bits: BitString
    test: IntensityCounts
    key: IntensityCounts
    zeros: int
    errors_given_0: int
    ones: int
    errors_given_1: int
    disclosed: Disclosed


@dataclass(frozen=True, slots=True)
class VerifiedBlock:
    """Equal on both sides except with probability eps_cor; made only by ``verification``."""

    bits: BitString
    test: IntensityCounts
    key: IntensityCounts
    disclosed: Disclosed


@dataclass(frozen=True, slots=True)
class SecretKey:
    """The output of privacy amplification."""

    bits: BitString


class StoredKey(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A key in a KME's store, allocated to one pair of SAEs, or to a master and a group of slaves.

    ``created_at``: seconds on the store's clock; ``metadata``: JSON about the block it was cut from, without secrets;
    ``block``: epoch and block. No dataclass: a tenth of the time to make, and thousands a second are (ADR 0046).
    """

    key_id: str
    master_sae: str
    slave_sae: str
    material: bytes
    created_at: float = 0.0
    metadata: str = "{}"
    block: tuple[int, int] = (0, 0)

    def _identity(self) -> tuple[str, str, str, bytes]:
        return self.key_id, self.master_sae, self.slave_sae, self.material

    def __eq__(self, other: object) -> bool:
        return self._identity() == other._identity() if isinstance(other, StoredKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        # Without the key, here and in rich's own form: what msgspec writes by itself has every member.
        return f"StoredKey(key_id={self.key_id!r}, master_sae={self.master_sae!r}, slave_sae={self.slave_sae!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("key_id", self.key_id), ("master_sae", self.master_sae), ("slave_sae", self.slave_sae)]


@dataclass(frozen=True, slots=True)
class DeliveredKey:
    """A key in a consumer's hands."""

    key_id: str
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EstablishedKey:
    """A key that two agents made: its name, 32 bytes or a pad, and where it comes from.

    ``components``: the methods whose secrets are in it; ``combiner``: how they were combined. Both go into reports.
    """

    key_id: bytes
    material: bytes = field(repr=False)
    components: tuple[str, ...]
    combiner: str
