"""The transmitter's half of Cascade: its bits stay; it compares parities, follows the search, and counts."""

from __future__ import annotations

from heliograph.bits import BitString
from heliograph.errors import RemoteProtocolError
from heliograph.kernels.cascade import Kernel
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.mirror import FEW_ROUNDS, Mirror, Pace
from heliograph.types import Disclosed

__all__ = ["Answerer"]


class Answerer:
    """Answers each message of parities with its own of the same groups.

    A message is checked whole before anything is counted or answered. It cannot choose what is compared: that follows
    from the seed and the differences so far (see :class:`mirror.Mirror`), and this side works it out by itself.
    """

    __slots__ = ("_heard", "_mirror")

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
        """Take the transmitter's sifted bits, the public seed of the passes and the estimate both sides start from.

        Raises LocalProtocolError if there are no bits.
        """
        self._mirror = Mirror(bits, seed, estimated_qber, limits, corrects=False, pace=pace, kernel=kernel)
        self._heard: BitString | None = None

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far, in both directions."""
        self.learn()
        return self._mirror.disclosed

    @property
    def parities(self) -> int:
        """The parities answered so far."""
        self.learn()
        return self._mirror.compared

    @property
    def rounds(self) -> int:
        """The messages answered so far."""
        self.learn()
        return self._mirror.rounds

    @property
    def expected(self) -> int:
        """How many parities the next message must have; 0 at the end."""
        self.learn()
        ours = self._mirror.parities
        return 0 if ours is None else len(ours)

    def answer(self, theirs: BitString) -> BitString:
        """Return our parities of the groups that the peer's message is about.

        They do not depend on the message, so what it says is taken in later: by :meth:`learn`, while our answer is
        under way, or when something next depends on it. Raises RemoteProtocolError for another number of parities than
        is due, which changes nothing; ReconciliationFailed above a cap, or after parities that contradict each other:
        then nothing is answered.
        """
        self.learn()
        self._mirror.check()
        ours = self._mirror.parities
        if ours is None:
            raise RemoteProtocolError("parities came where none were due: nothing is left to compare")
        if len(theirs) != len(ours):
            raise RemoteProtocolError(f"{len(theirs)} parities came where {len(ours)} were due")
        self._heard = theirs
        return ours

    def learn(self) -> None:
        """Take in the last message, if that is still to do. Trouble with it shows when this side is next asked."""
        heard, self._heard = self._heard, None
        if heard is not None:
            self._mirror.learn(heard)

    def pattern(self) -> BitString:
        """Return where the peer's bits were wrong.

        Raises RemoteProtocolError while groups are still to be compared, ReconciliationFailed where it could not go on.
        """
        self.learn()
        self._mirror.check()
        if self._mirror.parities is not None:
            raise RemoteProtocolError(f"reconciliation was ended where {self.expected} parities were due")
        return self._mirror.pattern
