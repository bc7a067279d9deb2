"""What a key's secrecy rests on besides physics: the word that goes with it for its life (security.md 7)."""

from __future__ import annotations

from heliograph.authentication.bootstrap import has_book
from heliograph.authentication.methods.registry import running_method

__all__ = ["assurance"]


def assurance(bootstrap: str, mac: str) -> str:
    """Return what authenticates a link whose epoch was opened by ``bootstrap`` and that goes on by ``mac``.

    "information-theoretic": a key book, and Wegman-Carter tags ever since. "information-theoretic since the bootstrap":
    signatures opened the epoch, so whoever could forge them *then* may be in the middle; whoever breaks them later is
    not; a comparison of the chain by two people settles it. "computational": the running method itself may be broken,
    at any time. Raises ConfigurationError for an unknown ``mac``.
    """
    method = running_method(mac)
    if method is None or method.assurance != "information-theoretic":
        return "computational"
    return "information-theoretic" if has_book(bootstrap) else "information-theoretic since the bootstrap"
