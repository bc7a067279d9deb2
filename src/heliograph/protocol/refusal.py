"""The one way in which a machine refuses an event that is not legal in its state."""

from __future__ import annotations

from typing import NoReturn

from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.protocol.actions import Received
from heliograph.protocol.codec import decode

__all__ = ["refuse"]


def refuse(state: object, event: object) -> NoReturn:
    """Raise RemoteProtocolError for a peer's frame, LocalProtocolError for anything of our own; nothing changes."""
    if isinstance(event, Received):
        raise RemoteProtocolError(f"{type(decode(event.frame.body)).__name__} in {type(state).__name__}")
    raise LocalProtocolError(f"{type(event).__name__} in {type(state).__name__}")
