"""The origin's side of a transfer: fresh keys into parcels, and from the target's acknowledgement to keys.

    secret of a transfer = key of the acknowledgement (32 bytes) || key 1 || key 2 || ...

The acknowledgement is a one-time tag under the first 32 bytes, over the letter and all keys: fewer relays than the
threshold know neither, so none can acknowledge in the target's place, and keys that are not the same at both ends are
not acknowledged. Before it the origin has the keys in memory only: a crash loses them, and nobody was told their names.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from heliograph.authentication.mac import Pad, check_tag, make_tag
from heliograph.errors import AuthenticationFailed, LocalProtocolError, RemoteProtocolError
from heliograph.network.endtoend import EndToEnd
from heliograph.network.letters import Letter, Receipt, Status, encode
from heliograph.network.parcels import ACK_KEY_BYTES, framed, make_parcels
from heliograph.network.routes import Route
from heliograph.network.sharing import split
from heliograph.network.topology import Path

__all__ = ["Transfer", "acknowledge", "key_id_text", "keys_of", "plan_transfer"]

Draw = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer under way. ``parcels``: one for each path, in order; ``secret``: never leaves whole by less than all
    paths.
    """  # noqa: D205  - one sentence of two lines

    letter: Letter
    wire: bytes
    secret: bytes = field(repr=False)
    parcels: tuple[bytes, ...] = field(repr=False)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The relayed bits of each key, in the order of the letter's key_IDs."""
        return keys_of(self.letter, self.secret)

    def check(self, receipt: Receipt) -> tuple[Path, ...]:
        """Return the paths whose shares the target refused. Raises AuthenticationFailed without its acknowledgement."""
        if receipt.status is not Status.STORED:
            raise AuthenticationFailed("the target does not acknowledge the keys")
        check_tag(Pad(self.secret[:ACK_KEY_BYTES]), _covered(self.wire, self.secret, receipt), receipt.ack)
        return tuple(self.letter.paths[number - 1] for number in receipt.suspects)


def plan_transfer(
    route: Route,
    paths: Sequence[Path],
    number: int,
    key_bytes: int,
    draws: tuple[Draw, Draw],
    end: EndToEnd | None,
    encapsulation_key: bytes = b"",
) -> Transfer:
    """Draw ``number`` keys and make their parcels. Raises ConfigurationError.

    ``draws``: of what stays secret, and of names, which cross in clear: two instances (security.md 6);
    ``end``: the secret with the other end, if the route has one; ``encapsulation_key``: of the layer, if it has one.
    """
    draw, names = draws
    key_ids = tuple(uuid.UUID(bytes=_drawn(names, 16), version=4).bytes for _ in range(number))
    letter = Letter(
        1,
        _drawn(names, 16),
        route.here,
        route.node,
        route.local_sae,
        route.remote_sae,
        key_ids,
        key_bytes,
        route.threshold,
        tuple(paths),
        route.layer,
    )
    if route.layer:
        assert end is not None  # Route
        letter = msgspec.structs.replace(letter, offer=end.offer(letter, encapsulation_key))
    wire = encode(letter)
    secret = _drawn(draw, ACK_KEY_BYTES + number * key_bytes)
    shares = split(secret, route.threshold, len(paths), draw)
    prove = None if end is None else lambda index, body: end.prove(wire, index, body)
    return Transfer(letter, wire, secret, make_parcels(wire, shares, draw, prove))


def acknowledge(wire: bytes, secret: bytes, suspects: tuple[int, ...], answer: tuple[bytes, bytes]) -> Receipt:
    """Return the target's receipt. Once for each transfer: its key tags one byte string."""
    receipt = Receipt(Status.STORED, suspects=suspects, answer=answer)
    ack = make_tag(Pad(secret[:ACK_KEY_BYTES]), _covered(wire, secret, receipt))
    return Receipt(Status.STORED, ack, suspects, answer)


def keys_of(letter: Letter, secret: bytes) -> tuple[bytes, ...]:
    """Return the keys in a transfer's secret. Raises RemoteProtocolError."""
    size = letter.key_bytes
    keys = tuple(secret[at : at + size] for at in range(ACK_KEY_BYTES, len(secret), size))
    if len(keys) != len(letter.key_ids) or len(keys[-1]) != size:
        raise RemoteProtocolError("a transfer whose keys are not as many as its letter names")
    return keys


def key_id_text(key_id: bytes) -> str:
    """Return a key_ID as the standard spells it."""
    return str(uuid.UUID(bytes=key_id))


def _covered(wire: bytes, secret: bytes, receipt: Receipt) -> list[bytes]:
    return framed(b"heliograph/1 stored", wire, secret[ACK_KEY_BYTES:], bytes(receipt.suspects), *receipt.answer)


def _drawn(draw: Draw, size: int) -> bytes:
    drawn = draw(size)
    if len(drawn) != size:
        raise LocalProtocolError("the random source gave too few bytes")
    return drawn
