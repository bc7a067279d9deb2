"""What the nodes of a network say to each other, each inside ``kme.one_time`` under one-time keys of one link. No I/O.

    Carry(letter, number, position, pads, cipher)  ->  Receipt(status, ack, suspects, answer, reason, hops)

``letter`` is public, the same bytes on every path, and says between whom which keys are made, by which paths;
``cipher`` is the share for one path, under one-time pads of the link; ``hops`` grows on the way back: what each hop
cost, and what is left there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeVar

import msgspec

from heliograph.errors import RemoteProtocolError
from heliograph.network.sharing import SHARES_MAX
from heliograph.network.topology import HOPS_MAX

__all__ = [
    "KEYS_MAX",
    "LAYERS",
    "REASON_MAX",
    "Carry",
    "Hop",
    "Letter",
    "Receipt",
    "Status",
    "encode",
    "read_carry",
    "read_letter",
    "read_receipt",
    "refused",
]

KEYS_MAX: Final = 32  # our choice: keys of one transfer; one hop then takes at most 47 keys of a link, of 256 bits
LAYERS: Final = ("", "ml-kem-768", "ml-kem-1024")
_VERSION: Final = 1
_ID_BYTES: Final = 16
_NAME_MAX: Final = 255
_BITS_MAX: Final = 1 << 32
REASON_MAX: Final = 500


class Letter(msgspec.Struct, frozen=True, array_like=True, tag="Letter", forbid_unknown_fields=True):
    """A transfer of fresh keys from ``origin`` to ``target``, for ``master`` there and ``slave`` here.

    ``offer``: message and tag of the end-to-end layer (``establishment.messages``), empty without one.
    """

    version: int
    transfer: bytes
    origin: str
    target: str
    master: str
    slave: str
    key_ids: tuple[bytes, ...]
    key_bytes: int
    threshold: int
    paths: tuple[tuple[str, ...], ...]
    layer: str = ""
    offer: tuple[bytes, bytes] = (b"", b"")


class Carry(msgspec.Struct, frozen=True, array_like=True, tag="Carry", forbid_unknown_fields=True):
    """One hop of one share. ``position``: of the receiving node in the path; ``pads``: key_IDs, in order."""

    letter: bytes
    number: int
    position: int
    pads: tuple[bytes, ...]
    cipher: bytes


class Hop(msgspec.Struct, frozen=True, array_like=True, tag="Hop", forbid_unknown_fields=True):
    """What one hop cost: ``bits`` of ``link``; ``stock``: keys left to the sender, -1 if it does not know."""

    link: str
    bits: int
    stock: int
    assurance: str


class Status(StrEnum):
    """What became of a share at the target, or before it."""

    STORED = "stored"
    HELD = "held"
    REFUSED = "refused"


class Receipt(msgspec.Struct, frozen=True, array_like=True, tag="Receipt", forbid_unknown_fields=True):
    """``ack``: the target's tag under the key inside the transfer; it covers ``suspects`` and ``answer`` too."""

    status: Status
    ack: bytes = b""
    suspects: tuple[int, ...] = ()
    answer: tuple[bytes, bytes] = (b"", b"")
    reason: str = ""
    hops: tuple[Hop, ...] = ()


def refused(reason: str) -> Receipt:
    """Return a receipt that says why not, in one line of bounded length."""
    return Receipt(Status.REFUSED, reason="".join(c if c.isprintable() else " " for c in reason)[:REASON_MAX])


Message = Letter | Carry | Receipt
_Record = TypeVar("_Record", Letter, Carry, Receipt)


def encode(message: Message) -> bytes:
    """Return the message's bytes."""
    return msgspec.msgpack.encode(message)


def read_letter(data: bytes) -> Letter:
    """Read a letter and check its form. Raises RemoteProtocolError."""
    letter = _decode(data, Letter)
    names = (letter.origin, letter.target, letter.master, letter.slave, *(n for path in letter.paths for n in path))
    if letter.version != _VERSION or len(letter.transfer) != _ID_BYTES or letter.layer not in LAYERS:
        raise RemoteProtocolError("a letter of another version, without a name, or with an unknown layer")
    if not all(0 < len(name) <= _NAME_MAX and name.isprintable() for name in names) or letter.origin == letter.target:
        raise RemoteProtocolError("a letter with a name that is none")
    key_ids = letter.key_ids
    if not 1 <= len(key_ids) <= KEYS_MAX or len(set(key_ids)) != len(key_ids) or {len(k) for k in key_ids} != {16}:
        raise RemoteProtocolError(f"a letter names between 1 and {KEYS_MAX} different keys")
    if not 8 <= letter.key_bytes <= 128 or not 1 <= letter.threshold <= len(letter.paths) <= SHARES_MAX:
        raise RemoteProtocolError("a letter with keys of no size, or a threshold that cannot be met")
    for path in letter.paths:
        if not 2 <= len(path) <= HOPS_MAX + 1 or (path[0], path[-1]) != (letter.origin, letter.target):
            raise RemoteProtocolError("a letter with a path that does not lead from its origin to its target")
        if len(set(path)) != len(path):
            raise RemoteProtocolError("a letter with a path that passes a node twice")
    return letter


def read_carry(data: bytes) -> Carry:
    """Read a hop's message. Raises RemoteProtocolError."""
    carry = _decode(data, Carry)
    if len(set(carry.pads)) != len(carry.pads) or any(len(pad) != _ID_BYTES for pad in carry.pads):
        raise RemoteProtocolError("a hop whose pads are not named, each once")
    return carry


def read_receipt(data: bytes) -> Receipt:
    """Read a reply. Raises RemoteProtocolError."""
    receipt = _decode(data, Receipt)
    if len(receipt.hops) > HOPS_MAX or any(not 0 <= hop.bits < _BITS_MAX for hop in receipt.hops):
        raise RemoteProtocolError("a receipt of more hops than there are, or with costs that cannot be")
    if not all(1 <= number <= SHARES_MAX for number in receipt.suspects):
        raise RemoteProtocolError("a receipt that suspects paths which cannot be")
    if len(receipt.reason) > REASON_MAX or not receipt.reason.isprintable():
        raise RemoteProtocolError("a receipt whose reason is no line of text")  # people read it on their terminals
    return receipt


def _decode(data: bytes, record: type[_Record]) -> _Record:
    try:
        message = msgspec.msgpack.decode(data, type=record, strict=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise RemoteProtocolError("a message between nodes that cannot be read") from None
    if msgspec.msgpack.encode(message) != data:  # one spelling for each message, as on the link
        raise RemoteProtocolError("a message between nodes in another spelling")
    return message
