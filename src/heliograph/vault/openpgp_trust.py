"""The OpenPGP anchor of one link: a peer's key is accepted when enough registered introducers certified it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from heliograph.authentication.anchors.openpgp import anchor_digest, judge, readable
from heliograph.authentication.anchors.openpgp_listing import Key, ListingUnreadable, read_listing
from heliograph.authentication.anchors.openpgp_packets import (
    SIGNATURE,
    Packet,
    Unreadable,
    blocks_of_file,
    certificates,
    is_weak_key,
    key_created,
    read_packets,
)
from heliograph.errors import AnchorRefused, ConfigurationError
from heliograph.vault.gnupg import GnuPG, GnuPGFailed
from heliograph.vault.openpgp import OpenPgpVerifier
from heliograph.vault.openpgp_certificate import (
    Certificate,
    SequoiaRefused,
    read_certificate,
    read_file,
    sequoia,
    sequoia_errors,
)

__all__ = ["KEYS_BYTES_MAX", "OpenPgpTrust"]

KEYS_BYTES_MAX: Final = 4 * 1024 * 1024  # our choice: of introducers, and of revocations
_KEY_REVOCATION: Final = 0x20
# RFC 9580 5.5.2: times are 32 bits.
_LAST_MOMENT: Final = 2**32 - 1


class OpenPgpTrust:
    """Accepts the peer ``user_id`` when ``threshold`` of the keys in the file ``introducers`` certified that name.

    ``revocations``: a file to which an operator adds revocation certificates, or newer exports of keys that carry
    them; None for no such file. All files are read anew at each ``accept``. The trust in the introducers is whole
    and equal, and goes no further: nobody whom an introducer trusts becomes one.

    Raises ConfigurationError naming the remedy.
    """

    def __init__(
        self, introducers: Path, threshold: int, user_id: str, revocations: Path | None, gnupg: GnuPG | None = None
    ) -> None:
        if threshold < 1:
            raise ConfigurationError(f"threshold {threshold}: at least one introducer must vouch for a peer")
        if not user_id or not user_id.isprintable():
            raise ConfigurationError(f"user ID {user_id!r}: name the peer as its certificate does, in printable text")
        self._introducers_file, self._revocations_file = introducers, revocations
        self._threshold, self._user_id = threshold, user_id
        self._sequoia = sequoia()
        self._gnupg = gnupg or GnuPG()
        self._read_introducers()
        self._read_revocations()

    def fingerprint(self) -> str:
        """Return the digest of this anchor: the introducers' fingerprints, the threshold and the user ID."""
        return anchor_digest(self.introducers(), self._threshold, self._user_id)

    def introducers(self) -> tuple[str, ...]:
        """Return the introducers' fingerprints, sorted, in lower-case hexadecimal."""
        return tuple(sorted({one.fingerprint for one in self._read_introducers()}))

    def recall(self, credential: bytes) -> OpenPgpVerifier:
        """Return the keys of a credential that was accepted before, without asking anybody now."""
        try:
            return OpenPgpVerifier(read_certificate(credential))
        except Unreadable as why:
            raise AnchorRefused("malformed", f"the peer's OpenPGP certificate: {why}") from None

    def accept(self, credential: bytes, now: float) -> OpenPgpVerifier:
        """Ask GnuPG about the credential at ``now`` (seconds since 1970) and count the introducers.

        Raises AnchorRefused with its cause, ConfigurationError if a file or GnuPG itself cannot be used.
        """
        if not math.isfinite(now) or not 0 < now < _LAST_MOMENT:
            raise ConfigurationError("this machine's clock is outside 1970 to 2106; set it")
        moment = int(now)
        verifier = self.recall(credential)
        peer = read_certificate(credential)
        introducers = self._read_introducers()
        revocations, updates = self._read_revocations()
        names = {one.fingerprint for one in introducers}
        self._check_peer(peer, verifier, moment)
        self._check_key_ids(peer, [*introducers, *updates])
        # Only what concerns a key of this anchor: GnuPG would stumble over the revocation of a key that it lacks.
        concerned = [(name, raw) for name, raw in revocations if _is_of(name, {peer.fingerprint, *names})]
        keys = self._ask(peer, introducers, [raw for _, raw in concerned], updates, moment)
        for name, _ in concerned:
            revoked = [key for fingerprint, key in keys.items() if _is_of(name, {fingerprint})]
            if not all(key.primary.validity == "r" for key in revoked):
                raise ConfigurationError(
                    f"revocations {self._revocations_file}: GnuPG does not take the revocation of {readable(name)}; "
                    "ask for a new one, or remove it if it is false"
                )
        able = judge(keys, peer.fingerprint, names, self._threshold, self._user_id, moment)
        accepted = OpenPgpVerifier(peer, able)
        if accepted.algorithm == "openpgp-":
            raise AnchorRefused("weak-algorithm", f"OpenPGP key {readable(peer.fingerprint)}: no strong key may sign")
        return accepted

    def _check_peer(self, peer: Certificate, verifier: OpenPgpVerifier, now: int) -> None:
        who = f"OpenPGP key {readable(peer.fingerprint)}"
        weak = is_weak_key(peer.packets[:1])
        if weak is not None:
            raise AnchorRefused("weak-algorithm", f"{who}: {weak} is too weak or unknown here; make an ed25519 key")
        if key_created(peer.packets[0]) > now:
            raise AnchorRefused("not-yet-valid", f"{who}: made later than this site's time; compare the clocks")
        if verifier.is_revoked:
            raise AnchorRefused("revoked", f"{who}: it is revoked; the peer needs a new key and new certifications")

    def _check_key_ids(self, peer: Certificate, others: Iterable[Certificate]) -> None:
        """Two keys with one 64-bit ID can be made on purpose; GnuPG's listing could not tell their signatures apart."""
        seen: dict[str, str] = {}
        for fingerprint in (name for one in (*others, peer) for name in one.keys):
            twin = seen.setdefault(fingerprint[-16:], fingerprint)
            if twin != fingerprint:
                raise AnchorRefused(
                    "malformed", f"OpenPGP key {readable(fingerprint)}: has the short ID of another, {readable(twin)}"
                )

    def _ask(
        self,
        peer: Certificate,
        introducers: list[Certificate],
        revocations: list[bytes],
        updates: list[Certificate],
        now: int,
    ) -> dict[str, Key]:
        with self._gnupg.keyring(now) as keyring:
            try:
                keyring.add(b"".join(one.content for one in introducers))
            except GnuPGFailed as why:
                raise ConfigurationError(f"introducers {self._introducers_file}: GnuPG: {why}") from None
            try:
                keyring.add(peer.content)
            except GnuPGFailed as why:
                raise AnchorRefused("malformed", f"OpenPGP key {readable(peer.fingerprint)}: GnuPG: {why}") from None
            try:
                if revocations or updates:
                    # Bare revocations first: after a key they would be read as part of it.
                    keyring.add(b"".join(revocations) + b"".join(one.content for one in updates))
            except GnuPGFailed as why:
                raise ConfigurationError(f"revocations {self._revocations_file}: GnuPG: {why}") from None
            try:
                return read_listing(keyring.listing())
            except (GnuPGFailed, ListingUnreadable) as why:
                raise AnchorRefused("malformed", f"OpenPGP key {readable(peer.fingerprint)}: GnuPG: {why}") from None

    def _read_introducers(self) -> list[Certificate]:
        path = self._introducers_file
        try:
            blocks = blocks_of_file(read_file(path, KEYS_BYTES_MAX, "introducers"))
            found = [Certificate(one) for block in blocks for one in certificates(read_packets(block))]
        except Unreadable as why:
            raise ConfigurationError(f"introducers {path}: {why}") from None
        names = {one.fingerprint for one in found}
        if len(names) < self._threshold:
            raise ConfigurationError(
                f"introducers {path}: {len(names)} keys, but {self._threshold} must vouch; "
                "add introducers' keys or lower the threshold"
            )
        for one in found:
            weak = is_weak_key(one.packets[:1])
            if weak is not None:
                raise ConfigurationError(
                    f"introducers {path}: {readable(one.fingerprint)} is a key of a weak or unknown kind ({weak})"
                )
        return found

    def _read_revocations(self) -> tuple[list[tuple[str, bytes]], list[Certificate]]:
        """Return revocation certificates by the fingerprint or key ID that they name, and newer exports of keys."""
        path = self._revocations_file
        if path is None:
            return [], []
        content = read_file(path, KEYS_BYTES_MAX, "revocations")
        if not content.strip():
            return [], []
        bare: list[tuple[str, bytes]] = []
        updates: list[Certificate] = []
        try:
            for block in blocks_of_file(content):
                packets = read_packets(block)
                first = next((i for i, packet in enumerate(packets) if packet.tag != SIGNATURE), len(packets))
                bare += [self._revocation(packet) for packet in packets[:first]]
                updates += [Certificate(one) for one in certificates(packets[first:])]
        except Unreadable as why:
            raise ConfigurationError(f"revocations {path}: {why}") from None
        if not bare and not updates:
            raise ConfigurationError(f"revocations {path}: there is no OpenPGP data in it; name what gpg exported")
        return bare, updates

    def _revocation(self, packet: Packet) -> tuple[str, bytes]:
        if packet.body[:2] != bytes([4, _KEY_REVOCATION]):
            raise Unreadable("a signature in it is no revocation of a key; put in an export of the key that carries it")
        try:
            with sequoia_errors():
                made = self._sequoia.Sig.from_bytes(packet.raw)
                name = made.issuer_fingerprint or made.issuer_key_id
        except SequoiaRefused:
            name = None
        if not name:
            raise Unreadable("a revocation in it does not say whose it is")
        return name, packet.raw


def _is_of(name: str, fingerprints: Iterable[str]) -> bool:
    return any(fingerprint.endswith(name) for fingerprint in fingerprints)
