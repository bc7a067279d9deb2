"""What travels on one path: a share, and what the others need to tell whether it is the one that was sent.

For each two paths i and j, one key for Poly1305, used once:

    path i carries   share i,   tag(i, j) = Poly1305(key(i, j), letter, i, j, share i)     for every other j
    path j carries   key(i, j)                                                             for every other i

Whoever changes share i, or the letter, knows none of the keys that the other paths carry (Rabin and Ben-Or 1989): it is
found except with probability 8 * ceil(L/16) / 2^106 for each tag, whatever it computes. Tags travel under the pads
too: the relay of path j has key(i, j), and with the tag in clear on path i it would learn 128 bits about that share.

Where the two ends have a secret that was carried out of band, a proof by HMAC-SHA-384 over the parcel goes with it. It
names the path that lies, also a lone one, and rests on computing power; the secrecy of the shares does not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from heliograph.authentication.mac import PAD_BYTES, TAG_BYTES, Pad, check_tag, make_tag
from heliograph.errors import AuthenticationFailed, RemoteProtocolError
from heliograph.network.letters import Letter

__all__ = ["ACK_KEY_BYTES", "PROOF_BYTES", "Parcel", "agree", "framed", "make_parcels", "parcel_bytes", "read_parcel"]

ACK_KEY_BYTES: Final = PAD_BYTES  # ahead of the keys in every transfer: the target acknowledges under it
PROOF_BYTES: Final = 48
Prove = Callable[[int, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Parcel:
    """``keys``: by the number of the path whose share they check; ``tags``: by the path that carries their key."""

    number: int
    share: bytes = field(repr=False)
    keys: dict[int, bytes] = field(repr=False)
    tags: dict[int, bytes] = field(repr=False)
    body: bytes = field(repr=False)
    proof: bytes = field(repr=False)


def framed(*parts: bytes) -> list[bytes]:
    """Return the parts, each behind its length, so that no two lists give the same bytes."""
    return [piece for part in parts for piece in (struct.pack(">I", len(part)), part)]


def parcel_bytes(letter: Letter, *, proved: bool) -> int:
    """Return how long a parcel of this transfer is."""
    others = len(letter.paths) - 1
    return _share_bytes(letter) + others * (PAD_BYTES + TAG_BYTES) + (PROOF_BYTES if proved else 0)


def make_parcels(
    wire: bytes, shares: Sequence[bytes], draw: Callable[[int], bytes], prove: Prove | None
) -> tuple[bytes, ...]:
    """Return one parcel for each path. ``wire``: the letter's bytes; ``prove``: number and body to a proof."""
    numbers = range(1, len(shares) + 1)
    keys = {(i, j): draw(PAD_BYTES) for i in numbers for j in numbers if i != j}
    parcels = []
    for i in numbers:
        others = [j for j in numbers if j != i]
        carried = [keys[j, i] for j in others]
        tags = [make_tag(Pad(keys[i, j]), _covered(wire, i, j, shares[i - 1])) for j in others]
        body = b"".join([shares[i - 1], *carried, *tags])
        parcels.append(body + (prove(i, body) if prove else b""))
    return tuple(parcels)


def read_parcel(letter: Letter, number: int, data: bytes, *, proved: bool) -> Parcel:
    """Take a parcel apart; nothing in it is believed yet. Raises RemoteProtocolError for another length."""
    if not 1 <= number <= len(letter.paths) or len(data) != parcel_bytes(letter, proved=proved):
        raise RemoteProtocolError("a parcel that does not fit its letter")
    others = [j for j in range(1, len(letter.paths) + 1) if j != number]
    body, proof = (data[:-PROOF_BYTES], data[-PROOF_BYTES:]) if proved else (data, b"")
    at = _share_bytes(letter)
    keys = {j: body[at + k * PAD_BYTES :][:PAD_BYTES] for k, j in enumerate(others)}
    at += len(others) * PAD_BYTES
    tags = {j: body[at + k * TAG_BYTES :][:TAG_BYTES] for k, j in enumerate(others)}
    return Parcel(number, body[: _share_bytes(letter)], keys, tags, body, proof)


def agree(wire: bytes, one: Parcel, other: Parcel) -> bool:
    """Tell whether each of two parcels vouches for the other's share."""
    return _vouches(wire, one, other) and _vouches(wire, other, one)


def _vouches(wire: bytes, checking: Parcel, checked: Parcel) -> bool:
    i, j = checked.number, checking.number
    try:
        check_tag(Pad(checking.keys[i]), _covered(wire, i, j, checked.share), checked.tags[j])
    except AuthenticationFailed:
        return False
    return True


def _share_bytes(letter: Letter) -> int:
    return ACK_KEY_BYTES + len(letter.key_ids) * letter.key_bytes


def _covered(wire: bytes, i: int, j: int, share: bytes) -> list[bytes]:
    return framed(b"heliograph/1 share", wire, bytes((i, j)), share)
