"""What a machine may ask of its shell, and what the shell tells it back.

Actions are carried out strictly in order, and ``Persist``, ``Tag`` and ``CheckTag`` are barriers: the next action
starts only when they are durable. That is how "burn before use" is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from heliograph.authentication.pads import PadRole
from heliograph.protocol.frames import Frame
from heliograph.protocol.records import CommitRecord
from heliograph.types import BlockParameters, DetectionRecord, PulseRecord

__all__ = [
    "Action",
    "CheckTag",
    "Clicked",
    "Collect",
    "Compute",
    "Computed",
    "Discard",
    "Draw",
    "Drawn",
    "Emit",
    "Emitted",
    "Event",
    "Failed",
    "Finish",
    "Persist",
    "Received",
    "Send",
    "Start",
    "Tag",
    "TagAccepted",
    "TagRefused",
    "Tagged",
]


# Actions.
@dataclass(frozen=True, slots=True)
class Send:
    """Hand the frame to the transport."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Tag:
    """Burn the pad at this role's address, tag ``covered``, answer with Tagged."""

    role: PadRole
    covered: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckTag:
    """Count an attempt at this role's address, compare, answer with TagAccepted or TagRefused."""

    role: PadRole
    covered: tuple[bytes, ...] = field(repr=False)
    tag: bytes


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw fresh random bytes, answer with Drawn."""

    size: int


@dataclass(frozen=True, slots=True)
class Compute:
    """Run a pure function outside the loop, answer with Computed, or Failed if it raises."""

    job: str
    function: Callable[..., object] = field(repr=False)
    arguments: tuple[object, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Emit:
    """Let the transmitter's module send the block's light, answer with Emitted."""

    parameters: BlockParameters


@dataclass(frozen=True, slots=True)
class Collect:
    """Let the receiver's module measure the block, answer with Clicked."""

    parameters: BlockParameters


@dataclass(frozen=True, slots=True)
class Persist:
    """Make the record durable."""

    record: CommitRecord


@dataclass(frozen=True, slots=True)
class Discard:
    """The block is over without a key; destroy what is left of its pads."""

    reason: str
    cause: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The block is over and its keys are supplied."""


Action = Send | Tag | CheckTag | Draw | Compute | Emit | Collect | Persist | Discard | Finish


# Events.
@dataclass(frozen=True, slots=True)
class Start:
    """Begin the block."""


@dataclass(frozen=True, slots=True)
class Received:
    """The peer's next frame of this block, past the pre-filter; nothing else is known of it."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Tagged:
    """The tag that was asked for."""

    role: PadRole
    tag: bytes


@dataclass(frozen=True, slots=True)
class TagAccepted:
    """The peer's tag is good."""

    role: PadRole


@dataclass(frozen=True, slots=True)
class TagRefused:
    """The peer's tag is not good, or no attempt is left."""

    role: PadRole


@dataclass(frozen=True, slots=True)
class Drawn:
    """Fresh random bytes."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Computed:
    """The result of a job."""

    job: str
    result: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Emitted:
    """The light has left."""

    pulses: PulseRecord = field(repr=False)


@dataclass(frozen=True, slots=True)
class Clicked:
    """The receiver's module has measured the block."""

    detections: DetectionRecord = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The block cannot go on: a job refused its input, a cap was passed, the module or the connection is gone."""

    cause: str
    reason: str


Event = Start | Received | Tagged | TagAccepted | TagRefused | Drawn | Computed | Emitted | Clicked | Failed
