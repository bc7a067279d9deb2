"""One-way reconciliation: the reference side sends a syndrome, the other side finds its errors by itself.

Nothing is asked about the bits, so one round trip mostly does, whatever the distance. Frames that do not decode are
named and get more parities, few at a time, so that an estimate that was too low costs little; if one still does not
decode with all there are, the block is lost. What is charged: each syndrome bit sent, and after each syndrome the
names of the frames, one bit for each frame both ways, whether they were needed or not (security.md 5).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, ReconciliationFailed, RemoteProtocolError
from heliograph.kernels.cascade import Kernel
from heliograph.kernels.ldpc import decode, syndromes
from heliograph.postprocessing.reconciliation.codes import ROUNDS_MORE, Frames, frames_for
from heliograph.postprocessing.reconciliation.correcting import Corrected
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.types import Disclosed

__all__ = ["Finder", "Source", "planned_rate"]

_ITERATIONS: Final = 100  # a frame that makes no progress is given up long before
_LOWEST: Final = 0.75  # of the rate planned for, to stay below the cap

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
    # An estimate that is high by chance must not cost a block that the cap allows: then a code that leaves a round.
    lower = rate
    while _with_a_round(frames) > limits.parities and lower > _LOWEST * rate:
        lower -= rate / 32
        frames = frames_for(len(bits), lower)
    _check(frames.count * (frames.first_bits + 1), limits)
    grid = np.zeros((frames.used, frames.count), dtype=np.uint8)
    grid.reshape(-1)[: len(bits)] = bits.to_array()
    padded = np.zeros((frames.count, frames.width * frames.z), dtype=np.uint8)
    padded[:, : frames.used] = grid.T
    return frames, np.packbits(padded).tobytes()


def _with_a_round(frames: Frames) -> int:
    return frames.count * (frames.first_bits + frames.more_bits(1) + 2)


def _check(parities: int, limits: Limits) -> None:
    if parities > limits.parities:
        raise ReconciliationFailed(f"{parities} parities would be disclosed, the cap is {limits.parities}")


def _picked(data: bytes, frames: Frames, failed: NDArray[np.intp]) -> bytes:
    """Return the frames named, of data that has equally many bytes for each."""
    return np.frombuffer(data, dtype=np.uint8).reshape(frames.count, -1)[failed].tobytes()


class Source:
    """The reference side: ``first()``, then ``more(failed)`` a few times at most. Its bits stay as they are."""

    __slots__ = ("_bits", "_frames", "_kernel", "_limits", "_named", "_rounds", "_sent")

    def __init__(self, bits: BitString, rate: float, limits: Limits, *, kernel: Kernel | None = None) -> None:
        """Take the bits and the rate both sides plan for.

        Raises LocalProtocolError without bits, ReconciliationFailed where no code or the cap allows it.
        """
        self._frames, self._bits = _begin(bits, rate, limits)
        self._limits = limits
        self._kernel = kernel
        self._rounds = self._sent = 0
        self._named = np.ones(self._frames.count, dtype=np.bool_)  # the frames that may still need more

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far; the names of frames count with the syndrome they answer."""
        return _disclosed(self._frames, self._sent, self._rounds)

    def first(self) -> BitString:
        """Return the syndrome of every frame. Raises LocalProtocolError the second time."""
        if self._rounds:
            raise LocalProtocolError("the syndrome is out already")
        self._rounds = 1
        size = self._frames.count * self._frames.first_bits
        self._sent += size
        return BitString(syndromes(self._frames.code(0), self._bits, kernel=self._kernel), size)

    def more(self, failed: BitString) -> BitString:
        """Return the next halves of rows of the frames with a one in ``failed``.

        Raises RemoteProtocolError for another number of frames, none, one that was not named before, or once too often;
        ReconciliationFailed above the cap. Neither changes anything.
        """
        if not 1 <= self._rounds <= ROUNDS_MORE:
            raise RemoteProtocolError("more of a syndrome was asked for out of turn")
        if len(failed) != self._frames.count:
            raise RemoteProtocolError(f"{len(failed)} frames were named of {self._frames.count}")
        named = failed.to_array().astype(np.bool_)
        if not named.any():
            raise RemoteProtocolError("more of a syndrome was asked for, of no frame")
        if (named & ~self._named).any():
            raise RemoteProtocolError("more of a syndrome was asked for, of a frame that was decoded")
        chosen = np.flatnonzero(named)
        size = len(chosen) * self._frames.more_bits(self._rounds)
        _check(self._sent + size + (self._rounds + 1) * self._frames.count, self._limits)
        first = self._frames.rows + self._frames.split(self._rounds - 1)
        code = self._frames.code(self._rounds)
        self._named = named
        self._rounds += 1
        self._sent += size
        bits = _picked(self._bits, self._frames, chosen)
        return BitString(syndromes(code, bits, first=first, kernel=self._kernel), size)


class Finder:
    """The other side: ``take(syndrome)`` until it returns Corrected; ``expected`` bits are due."""

    __slots__ = ("_bits", "_differences", "_failed", "_frames", "_kernel", "_limits", "_own", "_patterns", "_rounds",
                 "_taken", "expected")  # fmt: skip

    def __init__(self, bits: BitString, rate: float, limits: Limits, *, kernel: Kernel | None = None) -> None:
        """Take this side's bits and the rate both sides plan for. Raises like :class:`Source`."""
        self._frames, self._bits = _begin(bits, rate, limits)
        self._own = bits
        self._limits = limits
        self._kernel = kernel
        self._rounds = self._taken = 0
        self._failed = np.arange(self._frames.count)
        self._differences = np.empty((self._frames.count, 0, self._frames.z // 8), dtype=np.uint8)
        self._patterns = np.empty((self._frames.count, self._frames.width * self._frames.z // 8), dtype=np.uint8)
        self.expected = self._frames.count * self._frames.first_bits

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far, as :attr:`Source.disclosed` counts it."""
        return _disclosed(self._frames, self._taken, self._rounds)

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
        self._search(theirs.to_bytes())
        self._rounds += 1
        if not len(self._failed):
            return self._corrected()
        if self._rounds > ROUNDS_MORE:
            raise ReconciliationFailed(
                f"{len(self._failed)} of {self._frames.count} frames did not decode: more errors than the estimate "
                "promised"
            )
        more = len(self._failed) * self._frames.more_bits(self._rounds)
        _check(self._taken + more + (self._rounds + 1) * self._frames.count, self._limits)
        self.expected = more
        failed = np.zeros(self._frames.count, dtype=np.uint8)
        failed[self._failed] = 1
        return BitString.from_array(failed)

    def _search(self, theirs: bytes) -> None:
        """Decode the frames that did not decode before; the halves of this round split the rows that they are of."""
        frames, wanted = self._frames, self._failed
        code = frames.code(self._rounds)
        first = frames.rows + frames.split(self._rounds - 1) if self._rounds else 0
        ours = syndromes(code, _picked(self._bits, frames, wanted), first=first, kernel=self._kernel)
        difference = np.frombuffer(ours, dtype=np.uint8) ^ np.frombuffer(theirs, dtype=np.uint8)
        halves = difference.reshape(len(wanted), -1, frames.z // 8)
        if self._rounds:
            self._differences[:, frames.split_in(self._rounds)] ^= halves
        self._differences = np.concatenate([self._differences, halves], axis=1)
        found, took = decode(code, self._differences.tobytes(), frames.channel, _ITERATIONS, kernel=self._kernel)
        decoded = np.array(took) > 0
        patterns = np.frombuffer(found, dtype=np.uint8).reshape(len(wanted), -1)
        self._patterns[wanted[decoded]] = patterns[decoded]
        self._failed, self._differences = wanted[~decoded], self._differences[~decoded]

    def _corrected(self) -> Corrected:
        frames = self._frames
        found: Bits = np.unpackbits(self._patterns, axis=1)
        if found[:, frames.used :].any():
            raise ReconciliationFailed("errors were found beyond the end of a frame: the syndrome is not of these bits")
        flat = np.ascontiguousarray(found[:, : frames.used].T).reshape(-1)
        if flat[frames.length :].any():
            raise ReconciliationFailed("errors were found beyond the end of the block: not a syndrome of these bits")
        pattern = BitString.from_array(flat[: frames.length])
        return Corrected(self._own ^ pattern, self.disclosed, self._rounds)


def _disclosed(frames: Frames, syndrome_bits: int, rounds: int) -> Disclosed:
    named = max(rounds, 1) * frames.count
    return Disclosed(parities_a=syndrome_bits + named, parities_b=named)
