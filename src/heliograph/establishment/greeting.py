"""Whether the peer's agent is there, asked before a pad is fetched for it: a silent peer must not cost keys.

    initiator   Call(nonce)   ------->   tag
    tag, nonce                <-------   Here(nonce)     responder

Both under the two sites' peer key; the nonce is drawn anew each time, so no recording answers.
"""

from __future__ import annotations

import hmac

from heliograph.errors import RemoteProtocolError
from heliograph.establishment.exchange import Settings
from heliograph.establishment.messages import Call, Here, Tagged, read, tagged

__all__ = ["answer_call", "call", "check_here"]


def call(settings: Settings, nonce: bytes) -> Tagged:
    """Return the question. ``nonce``: 16 random bytes."""
    return tagged(Call(nonce), settings.keys)


def answer_call(settings: Settings, message: Tagged) -> Tagged | None:
    """Return the answer, or None if the message is something else. Raises RemoteProtocolError for a wrong tag."""
    asked = read(message, settings.keys.offers)
    return tagged(Here(asked.nonce), settings.keys) if isinstance(asked, Call) else None


def check_here(settings: Settings, nonce: bytes, message: Tagged) -> None:
    """Return if this is the peer's answer to our call. Raises RemoteProtocolError."""
    said = read(message, settings.keys.answers)
    if not isinstance(said, Here) or not hmac.compare_digest(said.nonce, nonce):
        raise RemoteProtocolError("an answer to another call came: replayed, or out of order")
