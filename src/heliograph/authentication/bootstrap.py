"""How two sites may begin to believe each other, and which blocks rest on that alone.

The bootstrap is used for the first block of an epoch, and for blocks tried before that one made a key. From then on
the link lives on a part of its own key: the bootstrap may be broken later without harm (theory.md 1.10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from heliograph.ports import Signer, Verifier

__all__ = ["BOOTSTRAP_BLOCKS", "METHODS", "SignedEpoch", "has_book", "has_signature", "is_bootstrap_block"]

METHODS: Final = ("psk", "pki", "openpgp", "psk+pki", "psk+openpgp")
# Our choice: how many blocks of an epoch may be tried before one has made a key.
BOOTSTRAP_BLOCKS: Final = 8


def has_book(method: str) -> bool:
    """Return whether a slot of a key book takes part."""
    return method.startswith("psk")


def has_signature(method: str) -> bool:
    """Return whether signatures take part."""
    return method != "psk"


def is_bootstrap_block(block: int) -> bool:
    """Return whether this block of its epoch is authenticated by the bootstrap, not by the link's own key."""
    return block <= BOOTSTRAP_BLOCKS


@dataclass(frozen=True, slots=True)
class SignedEpoch:
    """What signatures of one epoch's bootstrap blocks are made and checked with.

    ``context`` is the digest of the handshake that opened the epoch, on both sites: it binds both identities, both
    nonces, both credentials, the protocol version and the registration, so that no signature counts in another epoch,
    on another link or for another role.
    """

    context: bytes
    signer: Signer = field(repr=False)
    verifier: Verifier = field(repr=False)

    def sign(self, covered: Sequence[bytes]) -> bytes:
        """Return this site's signature over ``covered`` in this epoch."""
        return self.signer.sign(self._message(covered))

    def check(self, covered: Sequence[bytes], signature: bytes) -> None:
        """Check the peer's. Raises AuthenticationFailed."""
        self.verifier.verify(self._message(covered), signature)

    def _message(self, covered: Sequence[bytes]) -> bytes:
        return b"".join((b"heliograph/1 signed block", self.context, *covered))
