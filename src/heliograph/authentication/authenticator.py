"""Tags and checks messages with pads that are burnt, or counted, before they are used (security.md 2)."""

from __future__ import annotations

from collections.abc import Sequence

from heliograph.authentication.methods.interface import TagMethod
from heliograph.authentication.methods.registry import DEFAULT_METHOD
from heliograph.authentication.pads import PadAddress, PadStore

__all__ = ["Authenticator"]


class Authenticator:
    """The only place where pads meet messages; the protocol machines never hold a pad.

    ``method`` is the registration's; both sites have the same.
    """

    def __init__(self, pads: PadStore, method: TagMethod = DEFAULT_METHOD) -> None:
        self._pads = pads
        self._method = method

    @property
    def method(self) -> TagMethod:
        """How messages are tagged here."""
        return self._method

    def tag(self, address: PadAddress, covered: Sequence[bytes]) -> bytes:
        """Return the tag over ``covered``. Burn before use: the pad is durably spent before the tag exists.

        Raises PadsExhausted if the pad is absent or was spent, whatever for.
        """
        return self._method.tag(self._pads.burn(address).key, covered)

    def check(self, address: PadAddress, covered: Sequence[bytes], tag: bytes) -> None:
        """Accept the tag or raise AuthenticationFailed.

        The attempt is on disk before the comparison, so that a crash or a reconnect never gives a forger attempts
        that are not in the bound. Raises PadsExhausted if the pad is absent, spent, or out of attempts.
        """
        pad, attempts = self._pads.attempt(address)
        self._method.check(pad.key, covered, tag)
        bound = self._method.forgery_bound(sum(len(part) for part in covered), attempts)
        # A computational method has no bound to add; what is made under it is labelled instead.
        self._pads.accepted(address, bound or 0.0)
