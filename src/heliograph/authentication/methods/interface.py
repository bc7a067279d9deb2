"""What every method of data authentication offers, and the two checks that all of them share."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Literal, Protocol

from heliograph.errors import AuthenticationFailed, LocalProtocolError

__all__ = ["Assurance", "TagMethod", "refuse_other_key_sizes", "refuse_unless_equal"]

Assurance = Literal["information-theoretic", "computational"]


class TagMethod(Protocol):
    """Tags under a key that is used for one message.

    Every method takes its key from one 256-bit pad, so that a pad set serves whatever the registration names. The same
    pad never goes to two methods: it is burnt with its first tag.
    """

    @property
    def name(self) -> str:
        """The name in registrations and reports."""

    @property
    def key_bytes(self) -> int:
        """Size of a key."""

    @property
    def tag_bytes(self) -> int:
        """Size of a tag; tags are never truncated (security.md 2)."""

    @property
    def assurance(self) -> Assurance:
        """What a tag rests on: a proof alone, or the strength of a cipher or hash function too."""

    def tag(self, key: bytes, covered: Iterable[bytes]) -> bytes:
        """Return the tag over the concatenation of ``covered``; the caller frames the parts injectively.

        Raises LocalProtocolError for a key of another size.
        """

    def check(self, key: bytes, covered: Iterable[bytes], tag: bytes) -> None:
        """Compare in constant time. Raises AuthenticationFailed; success returns nothing, so nothing can be ignored."""

    def forgery_bound(self, length_bytes: int, attempts: int = 1) -> float | None:
        """Return the proved bound on the probability that one of ``attempts`` forgeries is accepted.

        ``length_bytes``: length of the longest message tried. None for a computational method: there is no bound to
        add to a ledger, and keys made under it say so (security.md 7).
        """


def refuse_other_key_sizes(method: TagMethod, key: bytes) -> None:
    """Raise LocalProtocolError unless ``key`` has the method's size: some libraries take several, or any."""
    if len(key) != method.key_bytes:
        raise LocalProtocolError(f"{method.name} takes a key of {method.key_bytes} bytes, not {len(key)}")


def refuse_unless_equal(expected: bytes, tag: bytes) -> None:
    """Compare two tags in constant time. Raises AuthenticationFailed, also for a tag of another size."""
    if not hmac.compare_digest(expected, tag):
        raise AuthenticationFailed("the tag does not match: the message was damaged or forged")
