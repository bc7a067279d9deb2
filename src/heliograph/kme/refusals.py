"""The ways in which a key manager says no to an SAE beyond those of the package's errors."""

from __future__ import annotations

from collections.abc import Sequence

from heliograph.errors import KeySupplyError

__all__ = ["OwnerUnreachable", "RequestRefused", "WishUnmet"]


class RequestRefused(KeySupplyError):
    """The request asks for something this KME does not do; the text says what it does instead.

    ``details``: pairs of a name and a text for the answer's details (ETSI GS QKD 014 6.5).
    """

    def __init__(self, message: str, details: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class WishUnmet(KeySupplyError):
    """The keys that could be handed out now are not as the request demands. ``name``: of the extension."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class OwnerUnreachable(KeySupplyError):
    """The key_ID is not known here and the site that would know it cannot be asked now; try again."""
