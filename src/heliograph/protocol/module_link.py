"""The module link: the wire between a QKD module, real or simulated, and the process on its other side.

Orders go to the fibre (or to a device), reports come back; a block id pairs them, so several blocks are in flight.
A frame is four bytes of length (big endian) and one msgpack record. Decoding is strict: unknown fields, other orders
of fields, trailing bytes and values out of range are refused, and a record is accepted only if encoding it again
gives the same bytes. The link carries secrets in clear and belongs inside one site or one machine: the seed of the
light stands for the light itself, which no attacker may read without being an attack on the light.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Annotated, Final, NoReturn, TypeAlias, TypeVar

import msgspec
import numpy as np

from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.types import LightParameters, Marks, Slots

__all__ = [
    "CLICKS_MAX",
    "HEADER_BYTES",
    "ORDER_BYTES_MAX",
    "REPORT_BYTES_MAX",
    "Arm",
    "ClicksReported",
    "Light",
    "LightSent",
    "ModuleError",
    "Order",
    "Report",
    "decode_order",
    "decode_report",
    "encode_frame",
    "frame_length",
    "report_clicks",
]

# Our choice: caps that an honest side never reaches.
HEADER_BYTES: Final = 4
ORDER_BYTES_MAX: Final = 2**13
REPORT_BYTES_MAX: Final = 2**28
CLICKS_MAX: Final = 29_000_000  # 9 bytes each; one report holds them all
REASON_CHARACTERS_MAX: Final = 500

BlockNumber = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Seed = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="record"):
    """One message. Seeds and detector patterns are secret: ``repr`` names the block only."""

    block: BlockNumber

    def __repr__(self) -> str:
        return f"{type(self).__name__}(block={self.block})"


class Light(_Record, frozen=True, tag="light"):
    """Transmitter's module to the fibre: this light leaves now; ``seed`` expands by ``kernels.expansion``."""

    light: LightParameters
    seed: Seed


class Arm(_Record, frozen=True, tag="arm"):
    """Receiver's module to the fibre: measure this block in the bases that ``seed`` expands to."""

    light: LightParameters
    seed: Seed


class LightSent(_Record, frozen=True, tag="light_sent"):
    """To the transmitter's module: the last pulse of the block has left."""


class ClicksReported(_Record, frozen=True, tag="clicks"):
    """To the receiver's module: the physical clicks of a whole block.

    ``slots``: int64 big endian, ascending; ``patterns``: one byte each, bit 0 for detector 0, bit 1 for detector 1.
    """

    slots: bytes
    patterns: Annotated[bytes, msgspec.Meta(max_length=CLICKS_MAX)]

    def arrays(self, pulses: int) -> tuple[Slots, Marks]:
        """Return slots and patterns as arrays. Raises RemoteProtocolError unless they can be clicks of ``pulses``."""
        if len(self.slots) != 8 * len(self.patterns):
            _refuse(f"{len(self.slots)} bytes of slots for {len(self.patterns)} patterns")
        slots = np.frombuffer(self.slots, dtype=">i8").astype(np.int64)
        patterns = np.frombuffer(self.patterns, dtype=np.uint8)
        if len(slots):
            if slots[0] < 0 or slots[-1] >= pulses or not (slots[1:] > slots[:-1]).all():
                _refuse(f"clicked slots must ascend and lie in [0, {pulses})")
            if patterns.min() < 1 or patterns.max() > 3:
                _refuse("a click without a detector, or of a third one")
        return slots, patterns


class ModuleError(_Record, frozen=True, tag="module_error"):
    """To either module: the block cannot be carried out, and why."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_CHARACTERS_MAX)]


Order: TypeAlias = Light | Arm
Report: TypeAlias = LightSent | ClicksReported | ModuleError

_Message = TypeVar("_Message")
_encoder: Final = msgspec.msgpack.Encoder()
_order_decoder: Final[msgspec.msgpack.Decoder[Order]] = msgspec.msgpack.Decoder(Order)
_report_decoder: Final[msgspec.msgpack.Decoder[Report]] = msgspec.msgpack.Decoder(Report)


def report_clicks(block: int, slots: Slots, patterns: Marks) -> ClicksReported:
    """Make the report of arrays of shape (n,). Raises LocalProtocolError above CLICKS_MAX."""
    if len(slots) > CLICKS_MAX:
        raise LocalProtocolError(f"block {block}: {len(slots)} clicks do not fit in one report of {CLICKS_MAX}")
    return ClicksReported(block=block, slots=slots.astype(">i8").tobytes(), patterns=patterns.tobytes())


def encode_frame(message: Order | Report) -> bytes:
    """Return header and record, ready to send. Raises LocalProtocolError for a record above its cap."""
    if isinstance(message, (Light, Arm)):
        payload = _encoder.encode(msgspec.structs.replace(message, light=_canonical(message.light)))
        limit = ORDER_BYTES_MAX
    else:
        payload, limit = _encoder.encode(message), REPORT_BYTES_MAX
    if len(payload) > limit:
        raise LocalProtocolError(f"{message!r} has {len(payload)} bytes, more than {limit}")
    return struct.pack(">I", len(payload)) + payload


def frame_length(header: bytes, limit: int) -> int:
    """Return the bytes that follow a header of HEADER_BYTES. Raises RemoteProtocolError if 0 or above ``limit``."""
    (length,) = struct.unpack(">I", header)
    if not 1 <= length <= limit:
        _refuse(f"a frame of {length} bytes, where 1 to {limit} are allowed")
    return int(length)


def decode_order(payload: bytes) -> Order:
    """Return the order in a frame's payload, or raise RemoteProtocolError."""
    return _decode(_order_decoder, payload, ORDER_BYTES_MAX)


def decode_report(payload: bytes) -> Report:
    """Return the report in a frame's payload, or raise RemoteProtocolError. Slots are checked by ``arrays``."""
    return _decode(_report_decoder, payload, REPORT_BYTES_MAX)


def _decode(decoder: msgspec.msgpack.Decoder[_Message], payload: bytes, limit: int) -> _Message:
    if len(payload) > limit:
        _refuse(f"a record of {len(payload)} bytes, more than {limit}")
    try:
        message = decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
        raise RemoteProtocolError(f"module link: not a record of this link: {error}") from None
    if _encoder.encode(message) != payload:
        _refuse("a record that is not in canonical form")
    return message


def _canonical(light: LightParameters) -> LightParameters:
    """Return the same parameters with every real number a float, as the decoder makes them."""
    return dataclasses.replace(
        light,
        clock_hz=float(light.clock_hz),
        intensities=tuple(map(float, light.intensities)),
        intensity_probabilities=tuple(map(float, light.intensity_probabilities)),
        transmitter_z_probability=float(light.transmitter_z_probability),
        receiver_z_probability=float(light.receiver_z_probability),
    )


def _refuse(reason: str) -> NoReturn:
    raise RemoteProtocolError(f"module link: {reason}")
