"""One-way reconciliation: the reference side sends a syndrome, the other side finds its errors by itself.

Nothing is asked about the bits, so one round trip does whatever the distance. Frames that do not decode are named once
and get the rows kept back; if one still does not decode, the block is lost. What is charged: each syndrome bit sent,
and the names of the frames, one bit for each frame both ways, whether they were needed or not (security.md 5).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, ReconciliationFailed, RemoteProtocolError
from heliograph.kernels.cascade import Kernel
from heliograph.kernels.ldpc import decode, syndromes
from heliograph.postprocessing.reconciliation.codes import Frames, frames_for
from heliograph.postprocessing.reconciliation.correcting import Corrected
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.types import Disclosed

__all__ = ["Finder", "Source", "planned_rate"]

# Our choices: the first keeps 20 Mb/s even where frames fail, the second is for a frame in a hundred.
_ITERATIONS: Final = 60
_ITERATIONS_MORE: Final = 150

Bits = NDArray[np.uint8]


def planned_rate(rate: float, sample: int) -> float:
    """Return the rate to plan for: one standard deviation above what ``sample`` bits show; errors plus one of each.

    Too low costs a second round or the block; too high costs its own excess in parities.
    """
    guess = (rate * sample + 1) / (sample + 2)
    return rate + float(np.sqrt(guess * (1 - guess) / max(sample, 1)))


def _begin(bits: BitString, rate: float, limits: Limits) -> tuple[Frames, bytes]:
    """Return the frames and their bits. Raises LocalProtocolError without bits, ReconciliationFailed above the cap."""
    if not len(bits):
        raise LocalProtocolError("there are no bits to reconcile")
    frames = frames_for(len(bits), rate)
    _check(frames.count * (frames.first_bits + 1), limits)
    grid = np.zeros((frames.used, frames.count), dtype=np.uint8)
    grid.reshape(-1)[: len(bits)] = bits.to_array()
    padded = np.zeros((frames.count, frames.width * frames.z), dtype=np.uint8)
    padded[:, : frames.used] = grid.T
    return frames, np.packbits(padded).tobytes()


def _check(parities: int, limits: Limits) -> None:
    if parities > limits.parities:
        raise ReconciliationFailed(f"{parities} parities would be disclosed, the cap is {limits.parities}")


def _picked(data: bytes, frames: Frames, failed: NDArray[np.intp]) -> bytes:
    """Return the frames named, of data that has equally many bytes for each."""
    return np.frombuffer(data, dtype=np.uint8).reshape(frames.count, -1)[failed].tobytes()


class Source:
    """The reference side: ``first()``, then ``more(failed)`` at most once. Its bits stay as they are."""

    __slots__ = ("_bits", "_extended", "_frames", "_kernel", "_limits", "_sent", "_started")

    def __init__(self, bits: BitString, rate: float, limits: Limits, *, kernel: Kernel | None = None) -> None:
        """Take the bits and the rate both sides plan for.

        Raises LocalProtocolError without bits, ReconciliationFailed where no code or the cap allows it.
        """
        self._frames, self._bits = _begin(bits, rate, limits)
        self._limits = limits
        self._kernel = kernel
        self._started = self._extended = False
        self._sent = 0

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far; the names of frames count from the start."""
        named = self._frames.count
        return Disclosed(parities_a=self._sent + named, parities_b=named)

    def first(self) -> BitString:
        """Return the syndrome of every frame. Raises LocalProtocolError the second time."""
        if self._started:
            raise LocalProtocolError("the syndrome is out already")
        self._started = True
        size = self._frames.count * self._frames.first_bits
        self._sent += size
        return BitString(syndromes(self._frames.code, self._bits, kernel=self._kernel), size)

    def more(self, failed: BitString) -> BitString:
        """Return the rows kept back of the frames with a one in ``failed``.

        Raises RemoteProtocolError for another number of frames, none, or a second time; ReconciliationFailed above the
        cap. Neither changes anything.
        """
        if not self._started or self._extended:
            raise RemoteProtocolError("more of a syndrome was asked for out of turn")
        if len(failed) != self._frames.count:
            raise RemoteProtocolError(f"{len(failed)} frames were named of {self._frames.count}")
        chosen = np.flatnonzero(failed.to_array())
        if not len(chosen):
            raise RemoteProtocolError("more of a syndrome was asked for, of no frame")
        size = len(chosen) * self._frames.more_bits
        _check(self._sent + self._frames.count + size, self._limits)
        self._extended = True
        self._sent += size
        code = self._frames.extended
        first = self._frames.first_bits // self._frames.z
        named = _picked(self._bits, self._frames, chosen)
        return BitString(syndromes(code, named, first=first, kernel=self._kernel), size)


class Finder:
    """The other side: ``take(syndrome)`` until it returns Corrected; ``expected`` bits are due."""

    __slots__ = ("_bits", "_differences", "_failed", "_frames", "_kernel", "_limits", "_own", "_patterns", "_taken",
                 "expected")  # fmt: skip

    def __init__(self, bits: BitString, rate: float, limits: Limits, *, kernel: Kernel | None = None) -> None:
        """Take this side's bits and the rate both sides plan for. Raises like :class:`Source`."""
        self._frames, self._bits = _begin(bits, rate, limits)
        self._own = bits
        self._limits = limits
        self._kernel = kernel
        self._taken = 0
        self._failed: NDArray[np.intp] | None = None
        self._differences = b""
        self._patterns: NDArray[np.uint8] = np.empty((0, 0), dtype=np.uint8)
        self.expected = self._frames.count * self._frames.first_bits

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far, as :attr:`Source.disclosed` counts it."""
        named = self._frames.count
        return Disclosed(parities_a=self._taken + named, parities_b=named)

    def take(self, theirs: BitString) -> BitString | Corrected:
        """Take the peer's syndrome; return the corrected bits, or which frames need more.

        Raises RemoteProtocolError for another size, which changes nothing; ReconciliationFailed if a frame does not
        decode with all there is, or more is above the cap.
        """
        if not self.expected:
            raise RemoteProtocolError("a syndrome came where none was due")
        if len(theirs) != self.expected:
            raise RemoteProtocolError(f"a syndrome of {len(theirs)} bits came where {self.expected} were due")
        self._taken += self.expected
        self.expected = 0
        return self._first(theirs.to_bytes()) if self._failed is None else self._second(theirs.to_bytes())

    def _first(self, theirs: bytes) -> BitString | Corrected:
        frames = self._frames
        self._differences = _sum(syndromes(frames.code, self._bits, kernel=self._kernel), theirs)
        patterns, took = decode(frames.code, self._differences, frames.offset, _ITERATIONS, kernel=self._kernel)
        self._patterns = np.frombuffer(patterns, dtype=np.uint8).reshape(frames.count, -1).copy()
        failed = np.array(took) == 0
        if not failed.any():
            return self._corrected()
        self._failed = np.flatnonzero(failed)
        more = len(self._failed) * frames.more_bits
        _check(self._taken + frames.count + more, self._limits)
        self.expected = more
        return BitString.from_array(failed.astype(np.uint8))

    def _second(self, theirs: bytes) -> Corrected:
        frames, failed = self._frames, self._failed
        assert failed is not None
        code, first = frames.extended, frames.first_bits // frames.z
        named = _picked(self._bits, frames, failed)
        behind = _sum(syndromes(code, named, first=first, kernel=self._kernel), theirs)
        before = _picked(self._differences, frames, failed)
        both = [np.frombuffer(part, dtype=np.uint8).reshape(len(failed), -1) for part in (before, behind)]
        patterns, took = decode(
            code, np.concatenate(both, axis=1).tobytes(), frames.offset, _ITERATIONS_MORE, kernel=self._kernel
        )
        if not all(took):
            raise ReconciliationFailed(
                f"{took.count(0)} of {frames.count} frames did not decode: more errors than the estimate promised"
            )
        self._patterns[failed] = np.frombuffer(patterns, dtype=np.uint8).reshape(len(failed), -1)
        return self._corrected()

    def _corrected(self) -> Corrected:
        frames = self._frames
        found: Bits = np.unpackbits(self._patterns, axis=1)
        if found[:, frames.used :].any():
            raise ReconciliationFailed("errors were found beyond the end of a frame: the syndrome is not of these bits")
        flat = np.ascontiguousarray(found[:, : frames.used].T).reshape(-1)
        if flat[frames.length :].any():
            raise ReconciliationFailed("errors were found beyond the end of the block: not a syndrome of these bits")
        pattern = BitString.from_array(flat[: frames.length])
        rounds = 1 if self._failed is None else 2
        return Corrected(self._own ^ pattern, self.disclosed, rounds)


def _sum(ours: bytes, theirs: bytes) -> bytes:
    return (np.frombuffer(ours, dtype=np.uint8) ^ np.frombuffer(theirs, dtype=np.uint8)).tobytes()
