"""Sifted keys that were recorded elsewhere: bytes of a file <-> bits.

Three forms, told apart by the file's name: ``.npy`` (one dimension, bool or integers 0 and 1), ``.bin`` (packed, most
significant bit first, so the length is 8 for each byte), and anything else as text of 0 and 1 with any ASCII white
space. Nothing is guessed and nothing is repaired: what is not exactly a key in its form is refused in one line.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from heliograph.bits import BitString
from heliograph.errors import ConfigurationError

__all__ = ["BITS_MAX", "BYTES_MAX", "Form", "form_of", "format_bits", "joined", "parse_bits", "parts"]

Form = Literal["text", "npy", "packed"]

# Our choices: a block in work takes a few bytes for each bit, and white space and wide integers take room in a file.
BITS_MAX: Final = 1 << 25
BYTES_MAX: Final = 4 * BITS_MAX + (1 << 16)

_WHITE: Final = b" \t\n\r\v\f"
_LINE_BITS: Final = 64
# The header of the .npy format, versions 1 and 2 (numpy.lib.format); read by hand, so nothing in it is ever evaluated.
_MAGIC: Final = b"\x93NUMPY"
_DESCR: Final = re.compile(rb"'descr'\s*:\s*'([^']{1,16})'")
_SHAPE: Final = re.compile(rb"'shape'\s*:\s*\(([0-9, ]{0,64})\)")
_TYPE: Final = re.compile(rb"[<>|=]?(b1|[iu][1248])")


def form_of(name: str) -> Form:
    """Return the form that a file's name stands for."""
    lower = name.lower()
    if lower.endswith(".npy"):
        return "npy"
    return "packed" if lower.endswith(".bin") else "text"


def parse_bits(data: bytes, form: Form) -> BitString:
    """Return the bits in a file's content. Raises ConfigurationError, whose text never quotes more than one symbol."""
    if len(data) > BYTES_MAX:
        raise ConfigurationError(f"more than {BYTES_MAX} bytes; cut the key into parts of at most {BITS_MAX} bits")
    bits = _PARSERS[form](data)
    if not len(bits):
        raise ConfigurationError("there is not a single bit in it; record a key first")
    if len(bits) > BITS_MAX:
        hint = ", or give --block-bits" if form == "packed" else ""
        raise ConfigurationError(f"{len(bits)} bits; cut the key into parts of at most {BITS_MAX}{hint}")
    return bits


def format_bits(bits: BitString, form: Form) -> bytes:
    """Return a file's content: text in lines of 64, or a uint8 array, or packed whole bytes.

    The packed form has no room for a length: the up to 7 bits beyond the last whole byte are left out.
    """
    if form == "packed":
        return bits[: len(bits) // 8 * 8].to_bytes()
    if form == "npy":
        file = io.BytesIO()
        np.lib.format.write_array(file, bits.to_array(), version=(1, 0), allow_pickle=False)
        return file.getvalue()
    digits = (bits.to_array() + ord("0")).tobytes()
    return b"".join(digits[at : at + _LINE_BITS] + b"\n" for at in range(0, len(digits), _LINE_BITS))


def parts(bits: int, block_bits: int | None) -> list[tuple[int, int]]:
    """Return first bit and length of each block that a recording of ``bits`` bits is cut into.

    Of about equal length, not below ``block_bits`` by more than 7, not above twice as many; all begin at a whole byte.
    One block, if there are fewer bits, or with None.
    """
    blocks = max(1, bits // block_bits) if block_bits else 1
    each = bits // blocks // 8 * 8 or bits
    return [(i * each, each if i < blocks - 1 else bits - i * each) for i in range(blocks)]


def joined(parts: Sequence[BitString]) -> BitString:
    """Return the parts one behind the other, without a gap."""
    if len(parts) == 1:
        return parts[0]
    whole = np.zeros((sum(map(len, parts)) + 7) // 8 + 1, dtype=np.uint8)
    at = 0
    for part in parts:
        # Shifted right by the bits that the last byte already has; the byte behind takes what falls out.
        first, shift = divmod(at, 8)
        packed = np.frombuffer(part.to_bytes(), dtype=np.uint8)
        whole[first : first + len(packed)] |= packed >> shift
        if shift:
            whole[first + 1 : first + 1 + len(packed)] |= packed << (8 - shift)
        at += len(part)
    return BitString(whole[: (at + 7) // 8].tobytes(), at)


def _parse_text(data: bytes) -> BitString:
    wrong = re.search(rb"[^01 \t\n\r\v\f]", data)
    if wrong is not None:
        symbol = wrong[0].decode("ascii") if 0x20 < wrong[0][0] < 0x7F else f"byte 0x{wrong[0].hex()}"
        line = data.count(b"\n", 0, wrong.start()) + 1
        raise ConfigurationError(
            f"line {line}: {symbol!r} is neither 0, 1 nor white space; name packed bits .bin and numpy arrays .npy"
        )
    digits = np.frombuffer(data.translate(None, _WHITE), dtype=np.uint8)
    return BitString.from_array(digits - np.uint8(ord("0")))


def _parse_packed(data: bytes) -> BitString:
    return BitString(data, 8 * len(data))


def _parse_npy(data: bytes) -> BitString:
    # (1) magic and version: 1.0 has a header length of two bytes, 2.0 of four
    size_bytes = {b"\x01\x00": 2, b"\x02\x00": 4}.get(data[6:8])
    if data[:6] != _MAGIC or size_bytes is None:
        raise ConfigurationError("this is not a .npy file of version 1 or 2; write it with numpy.save")
    start = 8 + size_bytes
    stop = start + int.from_bytes(data[8:start], "little")
    header = data[start:stop]
    descr, shape = _DESCR.search(header), _SHAPE.search(header)
    if len(data) < stop or descr is None or shape is None:
        raise ConfigurationError("the .npy header is damaged or not of a plain array; write it with numpy.save")
    # (2) type and shape, against the bytes that are there
    kind = _TYPE.fullmatch(descr[1])
    if kind is None:
        raise ConfigurationError(
            f"elements of type {descr[1].decode('latin1')!r}: bool or integers are needed; convert it, to uint8 say"
        )
    counts = [int(part) for part in shape[1].replace(b" ", b"").split(b",") if part]
    if len(counts) != 1:
        raise ConfigurationError(f"an array of {len(counts)} dimensions: exactly one is needed; flatten it")
    dtype = np.dtype(np.uint8 if kind[1] == b"b1" else descr[1].decode("ascii"))
    if len(data) - stop != counts[0] * dtype.itemsize:
        raise ConfigurationError(f"{len(data) - stop} bytes of data for {counts[0]} elements: the file is damaged")
    # (3) values
    values = np.frombuffer(data, dtype=dtype, offset=stop)
    if ((values != 0) & (values != 1)).any():
        raise ConfigurationError("some elements are neither 0 nor 1")
    return BitString.from_array(values.astype(np.uint8))


_PARSERS: Final = {"text": _parse_text, "packed": _parse_packed, "npy": _parse_npy}
