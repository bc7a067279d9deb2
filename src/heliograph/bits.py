"""BitString: a read-only string of bits, packed, that never prints its content."""

from __future__ import annotations

import hmac
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BitString"]

Bits = NDArray[np.uint8]


class BitString:
    """An immutable string of ``len(self)`` bits, most significant bit first in each byte.

    Unused bits of the last byte are always zero, so equal strings have equal bytes. Comparison is by
    ``hmac.compare_digest``; the content appears in neither ``repr`` nor ``str``.
    """

    __slots__ = ("_length", "_packed")

    _length: Final[int]  # type: ignore[misc]
    _packed: Final[bytes]  # type: ignore[misc]

    def __init__(self, packed: bytes, length: int) -> None:
        """Take ``ceil(length / 8)`` bytes. Raises ValueError for a wrong size or non-zero padding bits."""
        if length < 0 or len(packed) != (length + 7) // 8:
            raise ValueError(f"{len(packed)} bytes do not hold a string of {length} bits")
        if length % 8 and packed[-1] & ((1 << (8 - length % 8)) - 1):
            raise ValueError("the unused bits of the last byte are not zero")
        object.__setattr__(self, "_packed", bytes(packed))
        object.__setattr__(self, "_length", length)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a BitString does not change")

    @classmethod
    def from_array(cls, bits: Bits) -> BitString:
        """Pack an array of shape (n,), dtype uint8, values 0 and 1."""
        return cls(np.packbits(bits).tobytes(), len(bits))

    def to_array(self) -> Bits:
        """Return a fresh array of shape (n,), dtype uint8, values 0 and 1."""
        return np.unpackbits(np.frombuffer(self._packed, dtype=np.uint8), count=self._length)

    def to_bytes(self) -> bytes:
        """Return the packed bytes; the caller now holds the secret."""
        return self._packed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> BitString:
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise ValueError("a BitString is cut in one piece, without a step")
        stop = max(start, stop)
        if start % 8 == 0 and stop % 8 == 0:
            return BitString(self._packed[start // 8 : stop // 8], stop - start)
        return BitString.from_array(self.to_array()[start:stop])

    def __xor__(self, other: BitString) -> BitString:
        if not isinstance(other, BitString):
            return NotImplemented
        if len(other) != self._length:
            raise ValueError(f"{self._length} and {len(other)} bits cannot be combined")
        mixed = np.frombuffer(self._packed, np.uint8) ^ np.frombuffer(other._packed, np.uint8)
        return BitString(mixed.tobytes(), self._length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BitString):
            return NotImplemented
        return self._length == other._length and hmac.compare_digest(self._packed, other._packed)

    __hash__ = None  # type: ignore[assignment]

    def parity(self) -> int:
        """Return the exclusive or of all bits, 0 or 1."""
        return int(np.bitwise_count(np.frombuffer(self._packed, np.uint8)).sum()) & 1

    def __repr__(self) -> str:
        return f"<{self._length} bits>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a BitString is not pickled: key material does not leave the process that way")
