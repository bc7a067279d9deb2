"""When enough introducers vouch for a peer's OpenPGP key: the rules, over facts that GnuPG established.

GnuPG checks every signature, and says which keys and names are expired or revoked (``gpg --check-sigs
--with-colons``); here the certifications of the registered introducers on the registered name are counted. Nothing in
this module does cryptography, and nothing that the peer sends can add an introducer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from heliograph.authentication.anchors.openpgp_listing import Certification, Key, UserId
from heliograph.errors import AnchorRefused, ConfigurationError

__all__ = ["anchor_digest", "judge", "readable"]

# RFC 9580 9.5. SHA-1, RIPEMD-160 and MD5 can be collided, SHA-224 is nobody's default.
_STRONG_HASHES: Final = frozenset({8, 9, 10, 12, 14})
# RFC 9580 5.2.1: generic, casual, positive. Not 0x11, "has not checked at all", as GnuPG does by default.
_CERTIFICATIONS: Final = frozenset({0x10, 0x12, 0x13})
_ALL_CERTIFICATIONS: Final = frozenset({0x10, 0x11, 0x12, 0x13})
_KEY_REVOCATION: Final = 0x20
_CERTIFICATION_REVOCATION: Final = 0x30
# A revocation that could not be checked for a technical reason still stops a key: refusing is the safe side.
_HEEDED: Final = frozenset({"!", "%"})


def readable(fingerprint: str) -> str:
    """Return a fingerprint as people compare it: groups of four."""
    upper = fingerprint.upper()
    return " ".join(upper[i : i + 4] for i in range(0, len(upper), 4))


def anchor_digest(introducers: Iterable[str], threshold: int, user_id: str) -> str:
    """Return a SHA-256 over what an OpenPGP anchor is: the set of introducers, how many must vouch, and for whom.

    ``introducers``: fingerprints in hexadecimal, in any order. Two operators compare it, and a registration pins it.
    """
    prints = sorted({bytes.fromhex(fingerprint) for fingerprint in introducers})
    name = user_id.encode()
    parts = [threshold.to_bytes(4, "big"), len(name).to_bytes(4, "big"), name]
    parts += [piece for one in prints for piece in (len(one).to_bytes(1, "big"), one)]
    return hashlib.sha256(b"heliograph/1 openpgp anchor" + b"".join(parts)).hexdigest()


def judge(
    keys: Mapping[str, Key], peer: str, introducers: Iterable[str], threshold: int, user_id: str, now: int
) -> frozenset[str]:
    """Decide, and return the fingerprints of the peer's keys that may sign at ``now`` (seconds since 1970).

    ``keys``: GnuPG's listing by primary fingerprint, in lower case. Raises AnchorRefused.
    """
    who = f"OpenPGP key {readable(peer)}"
    key = keys.get(peer)
    if key is None:
        raise AnchorRefused("malformed", f"{who}: GnuPG finds no valid self-signature on it; export it again")
    _check_key(key, who, now)
    name = _check_name(key, who, user_id, now)
    _count(keys, key, name, frozenset(introducers), threshold, who, now)
    able = frozenset(
        part.fingerprint
        for part in (key.primary, *key.subkeys)
        if "s" in part.capabilities and part.validity not in {"r", "e", "i", "d", "n"} and not _over(part.expires, now)
    )
    if not able:
        raise AnchorRefused("wrong-key-usage", f"{who}: none of its keys may sign now; add a signing subkey")
    return able


def _check_key(key: Key, who: str, now: int) -> None:
    if _is_revoked(key):
        raise AnchorRefused("revoked", f"{who}: it is revoked; the peer needs a new key and new certifications")
    if key.primary.created > now:
        raise AnchorRefused("not-yet-valid", f"{who}: made on {_day(key.primary.created)}, later than this site's time")
    if key.primary.validity == "e" or _over(key.primary.expires, now):
        raise AnchorRefused(
            "expired", f"{who}: it expired on {_day(key.primary.expires)}; its owner prolongs it and exports it again"
        )
    if key.primary.validity in {"i", "d"}:
        raise AnchorRefused("malformed", f"{who}: GnuPG calls it invalid; its owner exports it again")


def _check_name(key: Key, who: str, user_id: str, now: int) -> UserId:
    names = [one for one in key.user_ids if one.name == user_id]
    if len(names) != 1:
        present = ", ".join(repr(one.name) for one in key.user_ids[:3]) or "no name"
        raise AnchorRefused("wrong-name", f"{who}: registered is {user_id!r}, it is made out to {present}")
    (name,) = names
    if name.validity == "r":
        raise AnchorRefused("revoked", f"{who}: its owner revoked the name {user_id!r}")
    if name.validity == "e":
        raise AnchorRefused("expired", f"{who}: the name {user_id!r} expired")
    own = _latest(name, key.primary.key_id, _ALL_CERTIFICATIONS, frozenset({"!"}))
    if own is None or own.created > now or name.validity in {"i", "d"}:
        raise AnchorRefused("malformed", f"{who}: its owner's signature on the name {user_id!r} is not valid")
    if own.hash_algorithm not in _STRONG_HASHES:
        raise AnchorRefused("weak-algorithm", f"{who}: the name is bound by a weak hash; its owner signs it anew")
    return name


def _count(
    keys: Mapping[str, Key], peer: Key, name: UserId, introducers: frozenset[str], threshold: int, who: str, now: int
) -> None:
    found, weak, tried, lines = 0, 0, 0, []
    for fingerprint in sorted(introducers):
        label, key = readable(fingerprint), keys.get(fingerprint)
        if key is None:
            raise ConfigurationError(f"introducer {label}: GnuPG cannot read this key; ask its owner for a new export")
        if key.user_ids:
            label += f" ({key.user_ids[0].name!r})"
        why, is_weak, is_there = _standing(key, peer, name, now)
        found, weak, tried = found + (why is None), weak + is_weak, tried + is_there
        lines.append(f"{label}: {why or 'vouches'}")
    if found >= threshold:
        return
    told = f"{who}: {found} of {threshold} needed introducers vouch for {name.name!r}. " + "; ".join(lines)
    if found + weak >= threshold:
        raise AnchorRefused("weak-algorithm", told)
    raise AnchorRefused("too-few-introducers" if tried else "untrusted", told)


def _standing(introducer: Key, peer: Key, name: UserId, now: int) -> tuple[str | None, bool, bool]:
    """Return why an introducer does not count (None: counts), if weakness is the only reason, if it certified."""
    key_id = introducer.primary.key_id
    if introducer.primary.fingerprint == peer.primary.fingerprint:
        return "is the peer itself, which cannot vouch for itself", False, False
    # The latest word of an introducer is what counts, so two certifications are one, and the later may take back.
    latest = _latest(name, key_id, _ALL_CERTIFICATIONS, frozenset({"!"}))
    if latest is None:
        return "has not certified this name of this key", False, False
    revoked = _latest(name, key_id, frozenset({_CERTIFICATION_REVOCATION}), _HEEDED)
    if _is_revoked(introducer):
        return "its key is revoked", False, True
    if introducer.primary.validity == "e" or _over(introducer.primary.expires, now):
        return f"its key expired on {_day(introducer.primary.expires)}", False, True
    if introducer.primary.validity in {"i", "d"} or introducer.primary.created > now:
        return "its key is not valid now", False, True
    if "c" not in introducer.primary.capabilities:
        return "its key may not certify", False, True
    if revoked is not None and revoked.created >= latest.created:
        return f"revoked its certification on {_day(revoked.created)}", False, True
    if latest.created > now:
        return f"its certification is dated {_day(latest.created)}, later than this site's time", False, True
    if _over(latest.expires, now):
        return f"its certification expired on {_day(latest.expires)}", False, True
    if latest.signature_class not in _CERTIFICATIONS:
        return "certified without checking (level 1)", False, True
    if not latest.exportable:
        return "certified for itself only (a local signature)", False, True
    if latest.hash_algorithm not in _STRONG_HASHES:
        return "certified with a weak hash; it certifies anew", True, True
    return None, False, True


def _latest(name: UserId, key_id: str, classes: frozenset[int], states: frozenset[str]) -> Certification | None:
    made = [
        one
        for one in name.certifications
        if one.key_id == key_id and one.signature_class in classes and one.state in states
    ]
    return max(made, key=lambda one: one.created, default=None)


def _is_revoked(key: Key) -> bool:
    return key.primary.validity == "r" or any(
        one.signature_class == _KEY_REVOCATION and one.state in _HEEDED for one in key.certifications
    )


def _over(expires: int | None, now: int) -> bool:
    return expires is not None and expires <= now


def _day(moment: int | None) -> str:
    return "an unknown day" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
