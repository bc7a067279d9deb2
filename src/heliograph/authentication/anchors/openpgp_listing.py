"""GnuPG's machine-readable listing, ``gpg --check-sigs --with-colons`` (its doc/DETAILS), as records.

Not used: field 13 of a signature, its maker's fingerprint. GnuPG gives it only with ``--no-sig-cache``, and then 2.2.40
prints a number that belongs to no key, or crashes (it frees the maker's key twice). So makers are told apart by the
64-bit key ID of field 5; whoever prepares the keyring sees to it that no two keys in it share one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Certification", "Key", "KeyPart", "ListingUnreadable", "UserId", "read_listing"]

_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([nrfvb0]))")
_LETTERS: Final = {b"n": b"\n", b"r": b"\r", b"f": b"\f", b"v": b"\v", b"b": b"\b", b"0": b"\0"}


class ListingUnreadable(ValueError):
    """GnuPG printed something that is not such a listing; nothing may be concluded from it."""


@dataclass(frozen=True, slots=True)
class Certification:
    """One signature on a name or on a key. ``state``: "!" good, "-" bad, "?" maker unknown, "%" not checkable."""

    state: str
    key_id: str
    created: int
    expires: int | None
    signature_class: int
    exportable: bool
    hash_algorithm: int


@dataclass(frozen=True, slots=True)
class KeyPart:
    """A primary key or a subkey. ``validity``: "r" revoked, "e" expired, "i" invalid, else not judged."""

    validity: str
    key_id: str
    created: int
    expires: int | None
    capabilities: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class UserId:
    """A name with the signatures on it. User attributes (pictures) are read as names that equal nothing."""

    validity: str
    name: str
    certifications: tuple[Certification, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """A primary key with what belongs to it. ``certifications``: those on the key itself, such as its revocation."""

    primary: KeyPart
    user_ids: tuple[UserId, ...] = ()
    subkeys: tuple[KeyPart, ...] = ()
    certifications: tuple[Certification, ...] = ()


def read_listing(text: bytes) -> dict[str, Key]:
    """Return the keys by fingerprint, in lower case. Raises ListingUnreadable."""
    keys: list[Key] = []
    place = ""
    for line in text.split(b"\n"):
        fields = line.split(b":")
        kind = fields[0].decode("ascii", "replace")
        try:
            if kind == "pub":
                keys.append(Key(_part(fields)))
                place = kind
            elif kind in {"fpr", "uid", "uat", "sub", "sig", "rev"}:
                keys[-1] = _add(keys[-1], kind, place, fields)
                place = place if kind in {"fpr", "sig", "rev"} else kind
        except (IndexError, ValueError):
            raise ListingUnreadable(f"GnuPG printed a line {kind!r} that is not understood here") from None
    found = {key.primary.fingerprint: key for key in keys}
    if "" in found or len(found) != len(keys):
        raise ListingUnreadable("GnuPG listed a key without a fingerprint, or one key twice")
    return found


def _add(key: Key, kind: str, place: str, fields: list[bytes]) -> Key:
    if kind in {"uid", "uat"}:
        # A picture's field 10 is two numbers; a name without it can equal no registered name.
        name = UserId(_letter(fields[1]), _unescape(fields[9]) if kind == "uid" else "")
        return replace(key, user_ids=(*key.user_ids, name))
    if kind == "sub":
        return replace(key, subkeys=(*key.subkeys, _part(fields)))
    if kind == "fpr":
        fingerprint = fields[9].decode("ascii").lower()
        if place == "sub":
            return replace(key, subkeys=(*key.subkeys[:-1], replace(key.subkeys[-1], fingerprint=fingerprint)))
        return replace(key, primary=replace(key.primary, fingerprint=fingerprint))
    if place == "sub":
        return key  # bindings: their outcome is in the subkey's own line
    one = _certification(fields)
    if place == "pub":
        return replace(key, certifications=(*key.certifications, one))
    last = key.user_ids[-1]
    return replace(key, user_ids=(*key.user_ids[:-1], replace(last, certifications=(*last.certifications, one))))


def _part(fields: list[bytes]) -> KeyPart:
    return KeyPart(
        validity=_letter(fields[1]),
        key_id=fields[4].decode("ascii").lower(),
        created=int(fields[5]),
        expires=int(fields[6]) if fields[6] else None,
        # Lower-case letters: this key itself. Upper case: the certificate as a whole, or "D" for disabled.
        capabilities="".join(letter for letter in fields[11].decode("ascii") if letter.islower()),
    )


def _certification(fields: list[bytes]) -> Certification:
    signature_class = fields[10].decode("ascii")
    return Certification(
        state=fields[1].decode("ascii")[:1],
        key_id=fields[4].decode("ascii").lower(),
        created=int(fields[5] or b"0"),
        expires=int(fields[6]) if fields[6] else None,
        signature_class=int(signature_class[:2], 16),
        exportable=signature_class[2:3] == "x",
        hash_algorithm=int(fields[15] or b"0") if len(fields) > 15 else 0,
    )


def _letter(field: bytes) -> str:
    return field.decode("ascii")[:1]


def _unescape(field: bytes) -> str:
    raw = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()) if match[1] else _LETTERS[match[2]], field)
    return raw.decode("utf-8", "surrogateescape")
