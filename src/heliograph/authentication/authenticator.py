"""Tags and checks messages with pads that are burnt, or counted, before they are used (security.md 2)."""

from __future__ import annotations

from collections.abc import Sequence

from heliograph.authentication.mac import check_tag, forgery_bound, make_tag
from heliograph.authentication.pads import PadAddress, PadStore

__all__ = ["Authenticator"]


class Authenticator:
    """The only place where pads meet messages; the protocol machines never hold a pad."""

    def __init__(self, pads: PadStore) -> None:
        self._pads = pads

    def tag(self, address: PadAddress, covered: Sequence[bytes]) -> bytes:
        """Return the tag over ``covered``. Burn before use: the pad is durably spent before the tag exists.

        Raises PadsExhausted if the pad is absent or was spent, whatever for.
        """
        return make_tag(self._pads.burn(address), covered)

    def check(self, address: PadAddress, covered: Sequence[bytes], tag: bytes) -> None:
        """Accept the tag or raise AuthenticationFailed.

        The attempt is on disk before the comparison, so that a crash or a reconnect never gives a forger attempts
        that are not in the bound. Raises PadsExhausted if the pad is absent, spent, or out of attempts.
        """
        pad, attempts = self._pads.attempt(address)
        check_tag(pad, covered, tag)
        self._pads.accepted(address, forgery_bound(sum(len(part) for part in covered), attempts))
