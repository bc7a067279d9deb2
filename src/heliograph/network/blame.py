"""Whom an origin blames when a transfer's receipts are back: no relay's word harms a path that it is not on. No I/O.

1. What the target acknowledged is proved, the paths that it names too. A path that refuses the same transfer, or shows
   an acknowledgement that the target did not make, is blamed alone: whom it accuses, the acknowledgement clears.
2. Without an acknowledgement, but with a secret between the ends (``peer_key``): the target proves whom it names. Who
   brings the proof is not blamed for it; an accusation without one falls back on the path that brought it.
3. With neither, nobody can tell which path of the transfer lied, and whoever is named by a receipt is named by one of
   them: all of its paths are left alone alike, as after a failure of their own. That ends at the first transfer that is
   acknowledged, or after a minute (``stocks``): one that only slanders fails in every transfer, its companions in none
   that it is not part of, so its own wait grows and theirs does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heliograph.errors import AuthenticationFailed
from heliograph.network.endtoend import EndToEnd
from heliograph.network.letters import Receipt, Status
from heliograph.network.topology import Path
from heliograph.network.transfer import Transfer

__all__ = ["Verdict", "judge"]

_DOUBT = "one of the paths of a transfer that the target did not acknowledge lies"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``failed``: paths to leave alone, and why; ``proved``: those of them that certainly lied, by the target's word
    or their own receipt; ``acknowledged``: a receipt that the target made, if there is one.
    """  # noqa: D205  - one sentence of two lines

    acknowledged: Receipt | None
    failed: dict[Path, str]
    proved: frozenset[Path]


def judge(transfer: Transfer, receipts: Sequence[Receipt], end: EndToEnd | None) -> Verdict:
    """Return whom the receipts blame. ``receipts``: one for each path, in order; ``end``: the route's secret."""
    paths, found = transfer.letter.paths, None
    failed, proved = dict[Path, str](), set[Path]()
    cleared, accused = set[Path](), False
    for path, receipt in zip(paths, receipts, strict=True):
        if receipt.status is Status.STORED:
            try:
                proved |= set(transfer.check(receipt))
                found = found or receipt
            except AuthenticationFailed:
                proved.add(path)
                failed[path] = "an acknowledgement that the target did not make: a relay on this path lies"
        elif receipt.status is Status.REFUSED:
            failed[path] = receipt.reason or "refused"
            accused = accused or bool(receipt.suspects)
            if end is not None and end.proves_refusal(transfer.wire, receipt):
                proved |= {paths[number - 1] for number in receipt.suspects}
                cleared.add(path)
    if found is None and end is None and accused:
        failed = {path: failed.get(path, _DOUBT) for path in paths}
    for path in proved:
        failed.setdefault(path, "the target refused its share: a relay on its path lies")
    if found is None:
        for path in cleared - proved:
            del failed[path]  # it brought the target's own word
    return Verdict(found, failed, frozenset(proved))
