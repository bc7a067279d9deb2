"""One hop: a share under one-time pads of one link, inside a message that two more of its keys authenticate.

    keys of the link, taken by the sender as master and gone at its key manager before the first byte leaves:
    [ request tag | reply tag | pad | pad | ... ]

The receiver takes the first two by name, checks the tag, and only then takes the pads that the message names: what a
stranger sends burns nothing (``kme.one_time``). A pad is used for one share and one hop.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from heliograph.errors import ConfigurationError, LocalProtocolError, RemoteProtocolError
from heliograph.kme.one_time import KEYS_FOR_EACH_MESSAGE, OneTimeKeys
from heliograph.network.letters import Carry, encode
from heliograph.network.sharing import xor
from heliograph.types import StoredKey

__all__ = ["KEY_BYTES_MIN", "SealedHop", "keys_needed", "open_share", "pad_ids", "seal_hop"]

KEY_BYTES_MIN: Final = 32  # a one-time tag's key


@dataclass(frozen=True, slots=True)
class SealedHop:
    """``wire``: what leaves; ``keys`` open the reply."""

    wire: bytes
    keys: OneTimeKeys = field(repr=False)


def keys_needed(share_bytes: int, key_bytes: int) -> int:
    """Return how many keys of a link one hop takes. Raises ConfigurationError for keys that are too short."""
    if key_bytes < KEY_BYTES_MIN:
        raise ConfigurationError(f"a link's keys have {8 * key_bytes} bits; relay needs {8 * KEY_BYTES_MIN} or more")
    return KEYS_FOR_EACH_MESSAGE + -(-share_bytes // key_bytes)


def seal_hop(keys: Sequence[StoredKey], letter: bytes, number: int, position: int, share: bytes) -> SealedHop:
    """Return the hop's message. ``keys``: as many as ``keys_needed``, none of them ever used before or after."""
    first, second, *pads = keys
    body = encode(Carry(letter, number, position, _ids(pads), _padded(share, pads)))
    one_time = OneTimeKeys(first, second)
    return SealedHop(one_time.seal(body), one_time)


def pad_ids(carry: Carry) -> tuple[str, ...]:
    """Return the key_IDs of a hop's pads, in order."""
    return tuple(str(uuid.UUID(bytes=pad)) for pad in carry.pads)


def open_share(carry: Carry, pads: Sequence[StoredKey]) -> bytes:
    """Return the share. ``pads``: the keys of ``pad_ids``, in that order. Raises RemoteProtocolError."""
    if _ids(pads) != carry.pads:
        raise LocalProtocolError("other pads than the hop names")
    try:
        return _padded(carry.cipher, pads)
    except LocalProtocolError:
        raise RemoteProtocolError("a hop whose pads are not as long as its share") from None


def _ids(keys: Sequence[StoredKey]) -> tuple[bytes, ...]:
    return tuple(uuid.UUID(key.key_id).bytes for key in keys)


def _padded(text: bytes, pads: Sequence[StoredKey]) -> bytes:
    stream = b"".join(key.material for key in pads)
    # A pad more than is needed would be key thrown away, one less would be used twice.
    if not len(text) <= len(stream) or (pads and len(stream) - len(text) >= len(pads[-1].material)):
        raise LocalProtocolError(f"{len(pads)} pads for a share of {len(text)} bytes")
    return xor(text, stream[: len(text)])
