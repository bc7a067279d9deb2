"""What two authenticated sets of marks mean: go on, skip ahead, open an epoch, or stop (security.md 4)."""

from __future__ import annotations

from dataclasses import dataclass

from heliograph.authentication.anchors.psk import OPERATOR_SLOTS, SLOTS
from heliograph.errors import PadsExhausted, RemoteProtocolError, RollbackDetected
from heliograph.protocol.records import Marks

__all__ = ["SKIP_MAX", "Resumption", "resynchronise"]

SKIP_MAX = 1024  # K: a larger step is an operator's to explain


@dataclass(frozen=True, slots=True)
class Resumption:
    """How the link goes on: in this epoch, with blocks after ``floor``; ``opens`` if this site has yet to open it.

    ``rebinds``: nothing was sent in this epoch yet, and the sites opened it by two different handshakes, because the
    end of one was lost; both take this one.
    """

    epoch: int
    floor: int
    opens: bool
    rebinds: bool = False


def resynchronise(
    own: Marks,
    peer: Marks,
    operator_epoch: int,
    *,
    has_book: bool = True,
    contexts_differ: bool = False,
    in_doubt: bool = False,
) -> Resumption:
    """Compare marks. Both sides come to the same epoch and floor, since each uses both sets of marks.

    ``operator_epoch``: the lowest epoch an operator asked for here (0: none did); ``has_book``: an epoch takes a slot
    of a key book; ``contexts_differ``: the sites hold different bootstraps of one epoch; ``in_doubt``: the fate of a
    block hangs on the peer's next word here, and that block may refill an empty pool. Raises RollbackDetected if the
    peer proves that this site sent what it does not remember, PadsExhausted if only an operator can go on,
    RemoteProtocolError if the peer is further ahead than a link may skip.
    """
    if own.epoch == peer.epoch and own.epoch > 0 and operator_epoch <= own.epoch:
        return _same_epoch(own, peer, has_book=has_book, contexts_differ=contexts_differ, in_doubt=in_doubt)
    wanted = max(own.epoch, peer.epoch, operator_epoch, 1)
    # Never automatic once a key was made: a new epoch reopens the window of the bootstrap (security.md 7).
    if own.committed and wanted > max(own.epoch, operator_epoch):
        raise PadsExhausted(
            f"the peer opened epoch {peer.epoch}: agree with its operator, then run `heliograph site rebootstrap`"
        )
    if own.committed and peer.epoch < own.epoch == wanted:
        raise PadsExhausted(
            f"the peer has lost epoch {own.epoch}, in which keys were made: "
            "run `heliograph site rebootstrap` on both sites"
        )
    return _open(own, wanted, operator_epoch, has_book=has_book)


def _same_epoch(own: Marks, peer: Marks, *, has_book: bool, contexts_differ: bool, in_doubt: bool) -> Resumption:
    if peer.proved > own.touched:
        raise RollbackDetected(
            f"the peer proves block {peer.proved} from this site, which remembers none after {own.touched}: "
            "the store is an old copy. Its pads are destroyed; run `heliograph site rebootstrap`"
        )
    floor = max(own.touched, own.proved, peer.touched, peer.proved)
    if floor - max(own.touched, own.proved) > SKIP_MAX:
        raise RemoteProtocolError(
            f"the peer is {floor} blocks into the epoch, further ahead than {SKIP_MAX}: ask there"
        )
    if contexts_differ and floor == 0:
        return Resumption(own.epoch, 0, opens=False, rebinds=True)
    if contexts_differ or min(own.pads, peer.pads) == 0:
        if own.committed or peer.committed:
            if in_doubt and not contexts_differ:
                return Resumption(own.epoch, floor, opens=False)
            raise PadsExhausted("no authentication pad is left: run `heliograph site rebootstrap` on both sites")
        return _open(own, own.epoch + 1, 0, has_book=has_book)
    return Resumption(own.epoch, floor, opens=False)


def _open(own: Marks, epoch: int, operator_epoch: int, *, has_book: bool) -> Resumption:
    if has_book and epoch > SLOTS:
        raise PadsExhausted("the key book is used up: make a new one and carry it to both sites")
    if has_book and epoch > SLOTS - OPERATOR_SLOTS and epoch != operator_epoch:
        raise PadsExhausted(
            f"only the last {OPERATOR_SLOTS} slots of the key book are left: run `heliograph site rebootstrap`"
        )
    if epoch == own.epoch:
        return Resumption(epoch, max(own.touched, own.proved), opens=False)
    return Resumption(epoch, 0, opens=True)
