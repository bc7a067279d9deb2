"""OpenPGP signatures for the bootstrap of a link, made and checked in process by Sequoia (the extra ``pgp``)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from heliograph.authentication.anchors.openpgp_packets import (
    SIGNATURE,
    Unreadable,
    blocks_of_file,
    certificates,
    is_weak_key,
    key_algorithm,
    read_packets,
)
from heliograph.errors import AnchorRefused, AuthenticationFailed, ConfigurationError
from heliograph.vault.openpgp_certificate import (
    CREDENTIAL_BYTES_MAX,
    Certificate,
    SequoiaRefused,
    read_certificate_file,
    read_file,
    sequoia,
    sequoia_errors,
)

if TYPE_CHECKING:
    import pysequoia

__all__ = ["OpenPgpSigner", "OpenPgpVerifier"]

_SIGNATURE_BYTES_MAX: Final = 16 * 1024
_TRIAL: Final = b"heliograph/1 openpgp trial"
# RFC 9580 9.5: the hashes by number, as hashlib calls them. SHA-1 and shorter are refused.
_HASHES: Final = {8: "sha256", 9: "sha384", 10: "sha512", 12: "sha3_256", 14: "sha3_512"}
_BINARY: Final = 0x00


class OpenPgpVerifier:
    """The keys of one certificate; ``signing_keys`` limits which of them may sign, None leaves it to Sequoia.

    Raises AnchorRefused if Sequoia cannot read the certificate, ConfigurationError without the extra ``pgp``.
    """

    def __init__(self, certificate: Certificate, signing_keys: frozenset[str] | None = None) -> None:
        self.fingerprint = certificate.fingerprint
        self._sequoia = sequoia()
        try:
            with sequoia_errors():
                self._cert: pysequoia.Cert = self._sequoia.Cert.from_bytes(certificate.content)
                same = self._cert.fingerprint == self.fingerprint
        except SequoiaRefused as why:
            raise AnchorRefused("malformed", f"OpenPGP key {self.fingerprint}: {why}") from None
        if not same:
            raise AnchorRefused("malformed", f"OpenPGP key {self.fingerprint}: Sequoia reads another key in it")
        keys = certificate.keys
        self._signing_keys = frozenset(keys) if signing_keys is None else signing_keys & frozenset(keys)
        able = {name for name in self._signing_keys if is_weak_key([keys[name]]) is None}
        self._algorithms = {name: key_algorithm(keys[name]) for name in able}

    @property
    def algorithm(self) -> str:
        """Such as "openpgp-ed25519"; several kinds of signing key are joined by "+"."""
        return "openpgp-" + "+".join(sorted(set(self._algorithms.values())))

    @property
    def is_revoked(self) -> bool:
        """Whether Sequoia finds the certificate revoked: a second opinion beside GnuPG's."""
        return bool(self._cert.is_revoked)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Accept one detached binary signature by one of the keys over exactly ``message``.

        Raises AuthenticationFailed for anything else: armour, text mode, an inline message, two signatures, an
        expired one, a weak hash, a key that may not sign, and any byte that the signature does not need.
        """
        try:
            body = self._only_packet(signature)
            with sequoia_errors():
                made = self._sequoia.Sig.from_bytes(signature)
                result = self._sequoia.verify(bytes=message, store=lambda _: [self._cert], signature=made)
                signers = [(one.certificate, one.signing_key) for one in result.valid_sigs]
        except (Unreadable, SequoiaRefused):
            self._refuse()
        # One signature, by a key that may sign: Sequoia alone would be content with any valid one among several.
        if len(signers) != 1 or signers[0][0] != self.fingerprint or signers[0][1] not in self._algorithms:
            self._refuse()
        if not _is_exact(body, message, signers[0][1]):
            self._refuse()

    def _only_packet(self, signature: bytes) -> bytes:
        if len(signature) > _SIGNATURE_BYTES_MAX:
            self._refuse()
        packets = read_packets(signature)
        if len(packets) != 1 or packets[0].tag != SIGNATURE or packets[0].raw not in _framings(packets[0].body):
            self._refuse()
        body = packets[0].body
        if len(body) < 6 or body[:2] != bytes([4, _BINARY]) or body[3] not in _HASHES:
            self._refuse()
        return body

    def _refuse(self) -> NoReturn:
        raise AuthenticationFailed(f"a signature is not one by OpenPGP key {self.fingerprint} over this message")


def _framings(body: bytes) -> tuple[bytes, ...]:
    """Return how GnuPG and Sequoia frame a signature packet (RFC 9580 4.2), shortest forms only."""
    size = len(body)
    old = b"\x88" + size.to_bytes(1, "big") if size < 256 else b"\x89" + size.to_bytes(2, "big")
    new = bytes([size]) if size < 192 else (size - 192 + (192 << 8)).to_bytes(2, "big") if size < 8384 else b""
    return (old + body, b"\xc2" + (new or b"\xff" + size.to_bytes(4, "big")) + body)


def _is_exact(body: bytes, message: bytes, signing_key: str) -> bool:
    """Check the parts of a version 4 signature that no signature covers (RFC 9580 5.2.3), so no bit of it is loose."""
    hashed = 6 + int.from_bytes(body[4:6], "big")
    stop = hashed + 2 + int.from_bytes(body[hashed : hashed + 2], "big")
    # Unhashed: nothing, or the key ID of the maker, which GnuPG writes there.
    if body[hashed + 2 : stop] not in {b"", b"\x09\x10" + bytes.fromhex(signing_key)[-8:]}:
        return False
    digest = hashlib.new(_HASHES[body[3]], message)
    digest.update(body[:hashed] + b"\x04\xff" + hashed.to_bytes(4, "big"))
    return body[stop : stop + 2] == digest.digest()[:2]


class OpenPgpSigner:
    """This site's OpenPGP key: a secret key file (0600, no passphrase) and the certificate that introducers certified.

    Raises ConfigurationError naming file and remedy if the two cannot be used together now.
    """

    def __init__(self, key: Path, certificate: Path) -> None:
        self._key = key
        self._sequoia = sequoia()
        public = read_certificate_file(certificate)
        self._tsk = self._load(key, public, certificate)
        self.credential = public.content
        try:
            self._verifier = OpenPgpVerifier(public)
            signature = self._make(_TRIAL)
            self._verifier.verify(_TRIAL, signature)
            with sequoia_errors():
                made_by = self._sequoia.Sig.from_bytes(signature).issuer_fingerprint
        except (AnchorRefused, AuthenticationFailed, SequoiaRefused):
            raise ConfigurationError(
                f"OpenPGP certificate {certificate}: the key in {key} does not make signatures that hold under it; "
                "export both again from the same keyring"
            ) from None
        self.algorithm = "openpgp-" + key_algorithm(public.keys[made_by])

    def _load(self, key: Path, public: Certificate, certificate: Path) -> pysequoia.Tsk:
        content = read_file(key, 2 * CREDENTIAL_BYTES_MAX, "OpenPGP key", private=True)
        try:
            data = b"".join(blocks_of_file(content))
            found = len(certificates(read_packets(data), secret=True))
            if found != 1:
                raise ConfigurationError(f"OpenPGP key {key}: holds {found} secret keys; export one by its fingerprint")
            with sequoia_errors():
                tsk: pysequoia.Tsk = self._sequoia.Tsk.from_bytes(data)
                fingerprint = tsk.extract_certificate().fingerprint
        except Unreadable as why:
            raise ConfigurationError(f"OpenPGP key {key}: {why}") from None
        except SequoiaRefused as why:
            raise ConfigurationError(f"OpenPGP key {key}: {why}; export it again, or make an ed25519 key") from None
        if fingerprint != public.fingerprint:
            raise ConfigurationError(
                f"OpenPGP key {key}: is {fingerprint}, but {certificate} is {public.fingerprint}; name the pair"
            )
        return tsk

    @property
    def fingerprint(self) -> str:
        """The certificate's fingerprint, lower-case hexadecimal."""
        return self._verifier.fingerprint

    def sign(self, message: bytes) -> bytes:
        """Return a detached binary signature. Raises ConfigurationError if the key cannot be used now."""
        signature = self._make(message)
        try:
            self._verifier.verify(message, signature)  # a signature gone wrong can give the key away: never send one
        except AuthenticationFailed:
            raise ConfigurationError(
                f"OpenPGP key {self._key}: it is expired or revoked, or the machine computes wrongly; nothing was sent"
            ) from None
        return signature

    def _make(self, message: bytes) -> bytes:
        try:
            with sequoia_errors():
                return bytes(
                    self._sequoia.sign(
                        self._tsk.signer(), message, mode=self._sequoia.SignatureMode.DETACHED, armor=False
                    )
                )
        except SequoiaRefused as why:
            if "encrypted" in str(why):
                raise ConfigurationError(
                    f"OpenPGP key {self._key}: it has a passphrase, and a site starts with nobody there to type one; "
                    "remove it with gpg --edit-key, passwd (empty), and export again into a file of mode 0600"
                ) from None
            raise ConfigurationError(
                f"OpenPGP key {self._key}: it cannot sign now ({why}); a signing key must be present, "
                "neither expired nor revoked"
            ) from None
