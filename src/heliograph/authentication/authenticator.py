"""Tags and checks messages with pads that are burnt, or counted, before they are used (security.md 2)."""

from __future__ import annotations

from collections.abc import Sequence

from heliograph.authentication.bootstrap import SignedEpoch, is_bootstrap_block
from heliograph.authentication.mac import Pad
from heliograph.authentication.methods.interface import TagMethod
from heliograph.authentication.methods.registry import DEFAULT_METHOD
from heliograph.authentication.pads import PadAddress, PadStore
from heliograph.errors import AuthenticationFailed, LocalProtocolError

__all__ = ["Authenticator"]


class Authenticator:
    """The only place where pads meet messages; the protocol machines never hold a pad.

    ``method``: what the registration names for all blocks after the bootstrap; None for signatures. A bootstrap block's
    tag is an information-theoretic one where a key book opened the epoch, a signature where certificates or OpenPGP
    keys did, and the one followed by the other where both did: an attacker must then break both.
    """

    def __init__(self, pads: PadStore, method: TagMethod | None = DEFAULT_METHOD) -> None:
        self._pads = pads
        self._method = method
        self._epoch: SignedEpoch | None = None

    @property
    def method(self) -> TagMethod | None:
        """How messages are tagged after the bootstrap; None by signatures."""
        return self._method

    def sign_for(self, epoch: SignedEpoch | None) -> None:
        """Use these signatures from now on; None where the bootstrap has none."""
        self._epoch = epoch

    def _means(self, address: PadAddress, pad: Pad | None) -> tuple[TagMethod | None, SignedEpoch | None]:
        """Return what tags and what signs at this address. Fail closed: what has neither is never sent."""
        bootstrap = is_bootstrap_block(address.block)
        method = DEFAULT_METHOD if bootstrap else self._method
        one_time = None if pad is None else method
        signing = self._epoch if bootstrap or method is None else None
        if one_time is None and signing is None:
            raise LocalProtocolError(f"block {address.block}: nothing to authenticate the {address.role.name} with")
        return one_time, signing

    def tag(self, address: PadAddress, covered: Sequence[bytes]) -> bytes:
        """Return the tag over ``covered``. Burn before use: the pad is durably spent before the tag exists.

        Raises PadsExhausted if the pad is absent or was spent, whatever for.
        """
        pad = self._pads.burn(address)
        one_time, signing = self._means(address, pad)
        tag = b"" if one_time is None or pad is None else one_time.tag(pad.key, covered)
        return tag if signing is None else tag + signing.sign(covered)

    def check(self, address: PadAddress, covered: Sequence[bytes], tag: bytes) -> None:
        """Accept the tag or raise AuthenticationFailed.

        The attempt is on disk before the comparison, so that a crash or a reconnect never gives a forger attempts
        that are not in the bound. Raises PadsExhausted if the pad is absent, spent, or out of attempts.
        """
        pad, attempts = self._pads.attempt(address)
        one_time, signing = self._means(address, pad)
        cut = 0 if one_time is None else one_time.tag_bytes
        if signing is not None:
            signing.check(covered, tag[cut:])
        elif len(tag) != cut:
            raise AuthenticationFailed(f"a tag of {len(tag)} bytes where {cut} were due")
        bound = None
        if one_time is not None and pad is not None:
            one_time.check(pad.key, covered, tag[:cut])
            bound = one_time.forgery_bound(sum(len(part) for part in covered), attempts)
        # Signatures and computational methods have no bound to add; what is made under them is labelled instead.
        self._pads.accepted(address, bound or 0.0)
