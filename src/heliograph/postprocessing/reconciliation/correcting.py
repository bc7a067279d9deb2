"""The receiver's half of Cascade: it corrects its bits towards the transmitter's."""

from __future__ import annotations

from dataclasses import dataclass

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError
from heliograph.kernels.cascade import Kernel
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.mirror import FEW_ROUNDS, Mirror, Pace
from heliograph.types import Disclosed

__all__ = ["Corrected", "Corrector"]


@dataclass(frozen=True, slots=True)
class Corrected:
    """The corrected bits, and what correcting them disclosed."""

    bits: BitString
    disclosed: Disclosed
    rounds: int


class Corrector:
    """``first_parities()``, then ``advance(reply)`` until it returns Corrected.

    For each parity compared an observer learns one parity of the transmitter's bits (``parities_a``) and one of ours
    (``parities_b``). Groups whose parity follows from known ones are not compared: a right half, the last group of
    passes 1 and 2, groups beyond the end.
    """

    __slots__ = ("_mirror",)

    def __init__(
        self,
        bits: BitString,
        seed: bytes,
        estimated_qber: float,
        limits: Limits,
        *,
        pace: Pace = FEW_ROUNDS,
        kernel: Kernel | None = None,
    ) -> None:
        """Take the receiver's sifted bits; the estimate need not be right. Raises LocalProtocolError if empty."""
        self._mirror = Mirror(bits, seed, estimated_qber, limits, corrects=True, pace=pace, kernel=kernel)

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far, in both directions: one bit each for every parity compared."""
        return self._mirror.disclosed

    def first_parities(self) -> BitString:
        """Return the parities that start the exchange.

        Raises LocalProtocolError once it is under way, ReconciliationFailed if they alone are above a cap.
        """
        self._mirror.check()
        if self._mirror.rounds or self._mirror.parities is None:
            raise LocalProtocolError("reconciliation has started already")
        return self._mirror.parities

    def advance(self, reply: BitString) -> BitString | Corrected:
        """Take the peer's parities of the same groups; return our next parities, or the end.

        Raises RemoteProtocolError for a reply of the wrong length, which changes nothing, and ReconciliationFailed
        when parities contradict each other or a cap is reached, after which this object is of no more use.
        """
        if self._mirror.parities is None:
            raise LocalProtocolError("no reply is outstanding")
        self._mirror.learn(reply)
        self._mirror.check()
        following = self._mirror.parities
        if following is None:
            return Corrected(self._mirror.bits, self._mirror.disclosed, self._mirror.rounds)
        return following
