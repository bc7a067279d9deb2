"""Tags and checks messages with pads that are burnt, or counted, before they are used (security.md 2)."""

from __future__ import annotations

from collections.abc import Sequence

from heliograph.authentication.bootstrap import SignedEpoch, is_bootstrap_block
from heliograph.authentication.mac import TAG_BYTES, Pad, check_tag, forgery_bound, make_tag
from heliograph.authentication.pads import PadAddress, PadStore
from heliograph.errors import AuthenticationFailed, LocalProtocolError

__all__ = ["Authenticator"]


class Authenticator:
    """The only place where pads meet messages; the protocol machines never hold a pad.

    A bootstrap block's tag is a one-time tag where a key book opened the epoch, a signature where certificates or
    OpenPGP keys did, and the one followed by the other where both did: an attacker must then break both.
    """

    def __init__(self, pads: PadStore) -> None:
        self._pads = pads
        self._epoch: SignedEpoch | None = None

    def sign_for(self, epoch: SignedEpoch | None) -> None:
        """Use these signatures for bootstrap blocks from now on; None where the bootstrap has none."""
        self._epoch = epoch

    def _signing(self, address: PadAddress, pad: Pad | None) -> SignedEpoch | None:
        """Return what signs at this address. Fail closed: what has neither pad nor signature is never sent."""
        signing = self._epoch if is_bootstrap_block(address.block) else None
        if pad is None and signing is None:
            raise LocalProtocolError(f"block {address.block}: nothing to authenticate the {address.role.name} with")
        return signing

    def tag(self, address: PadAddress, covered: Sequence[bytes]) -> bytes:
        """Return the tag over ``covered``. Burn before use: the pad is durably spent before the tag exists.

        Raises PadsExhausted if the pad is absent or was spent, whatever for.
        """
        pad = self._pads.burn(address)
        signing = self._signing(address, pad)
        tag = b"" if pad is None else make_tag(pad, covered)
        return tag if signing is None else tag + signing.sign(covered)

    def check(self, address: PadAddress, covered: Sequence[bytes], tag: bytes) -> None:
        """Accept the tag or raise AuthenticationFailed.

        The attempt is on disk before the comparison, so that a crash or a reconnect never gives a forger attempts
        that are not in the bound. Raises PadsExhausted if the pad is absent, spent, or out of attempts.
        """
        pad, attempts = self._pads.attempt(address)
        signing = self._signing(address, pad)
        cut = 0 if pad is None else TAG_BYTES
        one_time, signature = tag[:cut], tag[cut:]
        if signing is not None:
            signing.check(covered, signature)
        elif signature:
            raise AuthenticationFailed(f"a tag of {len(tag)} bytes where {TAG_BYTES} were due")
        bound = 0.0  # a signature has no bound: its block rests on a computational assumption, which reports name
        if pad is not None:
            check_tag(pad, covered, one_time)
            bound = forgery_bound(sum(len(part) for part in covered), attempts)
        self._pads.accepted(address, bound)
