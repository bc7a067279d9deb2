"""The outside of OpenPGP files (RFC 9580 4 and 6): armour, packets and key numbers, without any cryptography.

It decides what may be handed to GnuPG and Sequoia at all, so that both see the same keys: definite lengths, no
compression, no nesting, nothing but certificates and their signatures. What is inside a signature is theirs to check.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "PUBLIC_KEY",
    "PUBLIC_SUBKEY",
    "SECRET_KEY",
    "SECRET_SUBKEY",
    "SIGNATURE",
    "USER_ATTRIBUTE",
    "USER_ID",
    "Packet",
    "Unreadable",
    "blocks_of_file",
    "certificates",
    "is_weak_key",
    "key_algorithm",
    "key_created",
    "key_fingerprint",
    "read_packets",
]

# RFC 9580 5: packet types.
SIGNATURE: Final = 2
SECRET_KEY: Final = 5
PUBLIC_KEY: Final = 6
SECRET_SUBKEY: Final = 7
USER_ID: Final = 13
PUBLIC_SUBKEY: Final = 14
USER_ATTRIBUTE: Final = 17

_KEYS: Final = frozenset({PUBLIC_KEY, PUBLIC_SUBKEY, SECRET_KEY, SECRET_SUBKEY})
_OF_A_CERTIFICATE: Final = frozenset({SIGNATURE, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE})

# RFC 9580 9.1 and 9.2. Our choice of what is weak: DSA, ElGamal, and RSA below 2048 bits.
# Brainpool curves are not weak, but the Sequoia in use cannot compute on them.
_RSA: Final = frozenset({1, 3})
_RSA_BITS_MIN: Final = 2048
_CURVES: Final = {
    bytes.fromhex("2a8648ce3d030107"): "p256",
    bytes.fromhex("2b81040022"): "p384",
    bytes.fromhex("2b81040023"): "p521",
}
_EDDSA_CURVES: Final = {bytes.fromhex("2b06010401da470f01"): "ed25519", bytes.fromhex("2b6571"): "ed448"}

_ARMOUR: Final = re.compile(
    rb"^-----BEGIN PGP (?P<kind>[A-Z ]+)-----[ \t]*\r?\n"
    rb"(?:[A-Za-z]+: [^\r\n]*\r?\n)*[ \t]*\r?\n"
    rb"(?P<text>[A-Za-z0-9+/=\s]+?)"
    rb"^-----END PGP (?P=kind)-----",
    re.MULTILINE,
)


class Unreadable(ValueError):
    """Not a file or credential of the expected form; the text says what is wrong with it, without its bytes."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: its type, its body, and the bytes as they were (``raw``). The body may hold a secret key."""

    tag: int
    body: bytes
    raw: bytes

    def __repr__(self) -> str:
        """Say what it is and never what is in it."""
        return f"<packet {self.tag}, {len(self.body)} bytes>"


def read_packets(data: bytes) -> list[Packet]:
    """Split binary OpenPGP data into packets (RFC 9580 4.2). Raises Unreadable unless every byte belongs to one."""
    found = []
    at = 0
    while at < len(data):
        header = data[at]
        if not header & 0x80:
            raise Unreadable("it is not OpenPGP data in binary form")
        tag, start, length = _header(data, at, header)
        stop = start + length
        if stop > len(data):
            raise Unreadable("its last packet is cut short")
        found.append(Packet(tag, data[start:stop], data[at:stop]))
        at = stop
    return found


def _header(data: bytes, at: int, header: int) -> tuple[int, int, int]:
    """Return the packet's type, where its body starts, and its length."""

    def number(first: int, size: int) -> int:
        if first + size > len(data):
            raise Unreadable("its last packet is cut short")
        return int.from_bytes(data[first : first + size], "big")

    if not header & 0x40:
        kind = header & 3
        if kind == 3:
            raise Unreadable("it holds a packet of indefinite length")
        return (header >> 2) & 0x0F, at + 1 + (1 << kind), number(at + 1, 1 << kind)
    one = number(at + 1, 1)
    if one < 192:
        return header & 0x3F, at + 2, one
    if one < 224:
        return header & 0x3F, at + 3, ((one - 192) << 8) + number(at + 2, 1) + 192
    if one == 255:
        return header & 0x3F, at + 6, number(at + 2, 4)
    raise Unreadable("it holds a packet of partial length")


def blocks_of_file(content: bytes) -> list[bytes]:
    """Return the binary content of each armoured block of a file, or the file itself if it is binary.

    Every block counts, and a block that cannot be read refuses the whole file: a revocation that is passed over in
    silence would be no revocation. Raises Unreadable.
    """
    if content[:1] and content[0] & 0x80:
        return [content]
    if re.search(rb"^[ \t]*:[ \t]*-+BEGIN PGP", content, re.MULTILINE):
        raise Unreadable("GnuPG's guard is still there: remove the colon before -----BEGIN to use the revocation")
    blocks = [_dearmour(match["text"]) for match in _ARMOUR.finditer(content)]
    if len(blocks) != content.count(b"-----BEGIN") or len(blocks) != content.count(b"-----END"):
        raise Unreadable("one of its armoured blocks is damaged")
    return blocks


def _dearmour(text: bytes) -> bytes:
    lines = text.split()
    # RFC 9580 6.1: a checksum line begins with "="; it protects nothing that a signature does not, and is optional.
    if lines and lines[-1].startswith(b"="):
        lines.pop()
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error:
        raise Unreadable("one of its armoured blocks is damaged") from None


def certificates(packets: Sequence[Packet], secret: bool = False) -> list[list[Packet]]:  # noqa: FBT001, FBT002  - one reader for both forms
    """Group packets into certificates, or with ``secret`` into secret keys. Raises Unreadable for anything else."""
    primary, subkey = (SECRET_KEY, SECRET_SUBKEY) if secret else (PUBLIC_KEY, PUBLIC_SUBKEY)
    found: list[list[Packet]] = []
    for packet in packets:
        if packet.tag == primary:
            found.append([packet])
        elif not secret and packet.tag in {SECRET_KEY, SECRET_SUBKEY}:
            raise Unreadable("it holds a SECRET key; export with `gpg --export`, and keep that file to yourself")
        elif secret and packet.tag in {PUBLIC_KEY, PUBLIC_SUBKEY}:
            raise Unreadable("it holds a public key; export with `gpg --export-secret-keys`")
        elif found and packet.tag in {SIGNATURE, USER_ID, USER_ATTRIBUTE, subkey}:
            found[-1].append(packet)
        else:
            raise Unreadable(f"a packet of type {packet.tag} is out of place")
        if packet.tag in _KEYS and packet.body[:1] != b"\x04":
            raise Unreadable(
                f"it holds a key of version {packet.body[0] if packet.body else '?'}; "
                "only version 4 is used here (GnuPG makes it by default)"
            )
    return found


def key_fingerprint(packet: Packet) -> str:
    """Return the fingerprint of a version 4 public key or subkey, lower-case hexadecimal (RFC 9580 5.5.4.2).

    SHA-1 by definition of the format: it names a key, it does not vouch for it.
    """
    framed = b"\x99" + len(packet.body).to_bytes(2, "big") + packet.body
    return hashlib.sha1(framed, usedforsecurity=False).hexdigest()


def key_created(packet: Packet) -> int:
    """Return when a key says that it was made, in seconds since 1970."""
    return int.from_bytes(packet.body[1:5], "big")


def key_algorithm(packet: Packet) -> str:
    """Return a name for reports: "ed25519", "rsa3072", "ecdsa-p256", or "algorithm-N" for what is not known here."""
    body = packet.body
    number = body[5] if len(body) > 5 else 0
    if number in _RSA:
        return f"rsa{int.from_bytes(body[6:8], 'big')}"
    if number in {19, 22}:
        oid = body[7 : 7 + body[6]] if len(body) > 6 else b""
        known = _CURVES if number == 19 else _EDDSA_CURVES
        name = known.get(oid)
        if name:
            return f"ecdsa-{name}" if number == 19 else name
    return {27: "ed25519", 28: "ed448", 17: "dsa"}.get(number, f"algorithm-{number}")


def is_weak_key(packets: Iterable[Packet]) -> str | None:
    """Return the name of the first key that is too weak, or unknown, to sign; None if all will do."""
    for packet in packets:
        name = key_algorithm(packet)
        if name.startswith("rsa"):
            if int(name[3:]) < _RSA_BITS_MIN:
                return name
        elif name.startswith(("dsa", "algorithm-")):
            return name
    return None
