"""The one peer that a site's link believes: written by an operator's registration, checked before every start.

A directory (0700) holds ``record.json`` (0600) and copies of the peer's anchor files. The record carries SHA-256 of
each file, and is itself sealed under the site's key-encryption key and tied to the newest line of the audit log about
it: a file or a record that was exchanged, edited or restored from a backup is refused.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping

import msgspec

from heliograph.authentication.anchors.book_marks import BookMarks
from heliograph.authentication.registration import registration_fingerprint
from heliograph.errors import ConfigurationError, HeliographError, StoreUnavailable
from heliograph.ports import Vault
from heliograph.site.audit import AuditEntry, AuditLog
from heliograph.site.config import SiteConfig
from heliograph.site.files import replace_file, sync_directory

__all__ = [
    "TRUST_EVENTS",
    "PeerRecord",
    "TrustStore",
    "again",
    "fingerprint_of",
    "not_registered",
    "place_of",
]

RECORD = "record.json"
# The acts after which the record names their line of the audit log.
TRUST_EVENTS = ("registration", "re-registration", "revocation")
_CONTEXT = b"heliograph/1 trust record"


class PeerRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was registered. ``own_anchors`` and ``peer_anchors``: fingerprints by kind ("psk", "pki", "openpgp").

    ``time``: seconds since 1970; ``files``: SHA-256 by name; ``threshold`` of ``introducers`` certify ``user_id``.
    """

    site: str
    peer: str
    link: str
    bootstrap: str
    registration_digest: str
    own_anchors: dict[str, str]
    peer_anchors: dict[str, str]
    fingerprint: str
    approver: str
    time: float
    files: dict[str, str]
    audit_digest: str
    book: BookMarks | None = None
    crl_required: bool = True
    threshold: int | None = None
    user_id: str | None = None
    introducers: tuple[str, ...] = ()

    def anchors_mark(self) -> bytes:
        """Return 32 bytes that change exactly when a trust anchor of either site does: an epoch is opened under it."""
        return hashlib.sha256(
            b"heliograph/1 anchors"
            + msgspec.json.encode([self.bootstrap, sorted(self.own_anchors.items()), sorted(self.peer_anchors.items())])
        ).digest()


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    record: PeerRecord
    seal: bytes


def fingerprint_of(config: SiteConfig, own: Mapping[str, str], peer: Mapping[str, str]) -> bytes:
    """Return the fingerprint that both sites show, from this site's and its peer's anchors."""
    ends = (own, peer) if config.file.link.role == "transmitter" else (peer, own)
    registration = config.registration
    return registration_fingerprint(registration.identity().prefix(), registration.bootstrap, *ends)


def again(config: SiteConfig) -> str:
    """Return the remedy for everything that no longer fits."""
    return f"register again with `heliograph site register {config.toml}{config.link_option} --approver NAME --replace`"


def not_registered(config: SiteConfig) -> ConfigurationError:
    """Return the refusal of a link whose peer nobody vouched for."""
    return ConfigurationError(
        f"{config.peer!r}, the peer of link {config.registration.link!r}, is not registered here: run "
        f"`heliograph site register {config.toml}{config.link_option} --approver NAME`"
    )


def place_of(config: SiteConfig) -> dict[str, object]:
    """Return what the audit log says of where a registration is: nothing of a site's first link, where it always was.

    So each link has a newest act of its own, whatever others come and go.
    """
    return {"trust": config.file.link.trust} if config.link_name else {}


class TrustStore:
    """The trust directory of one site."""

    def __init__(self, config: SiteConfig, vault: Vault) -> None:
        self._config = config
        self._vault = vault
        self.path = config.trust

    def exists(self) -> bool:
        """Return whether something is registered, sound or not."""
        return (self.path / RECORD).exists()

    def load(self, *, unless: frozenset[str] = frozenset()) -> PeerRecord:
        """Return the record, every check passed. Raises ConfigurationError with the remedy.

        ``unless``: files that are about to be replaced, so that a crash while replacing them can be repaired.
        """
        record = self._unsealed()
        self._check_names(record)
        for name, digest in record.files.items():
            if name not in unless:
                self._check_file(name, digest)
        return record

    def check_audited(self, record: PeerRecord, *, repaired: frozenset[str] = frozenset()) -> None:
        """Refuse a record that is not the newest one the audit log tells of: an old copy trusts what was withdrawn.

        ``repaired``: files that are being replaced, which end a revocation of the same files that was cut short.
        """
        try:
            entries = AuditLog(self._config.audit).verify(needs_head=True).entries
        except HeliographError as why:
            raise ConfigurationError(
                f"{why}; keep the log's two files elsewhere as evidence, then {self._remedy}: a new log begins"
            ) from None
        place = place_of(self._config).get("trust")
        acts = [entry for entry in entries if entry.event in TRUST_EVENTS and entry.details.get("trust") == place]
        newest = acts[-1] if acts else None
        if newest is None or record.audit_digest not in {newest.digest(), _cut_short(newest, repaired)}:
            where = f"line {newest.sequence}" if newest else "no line"
            raise ConfigurationError(
                f"{self.path / RECORD}: is not what the audit log tells of last ({where}): an old copy was put "
                f"back, or an act was cut short; {self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        return again(self._config)

    def _unsealed(self) -> PeerRecord:
        path = self.path / RECORD
        try:
            for place in (self.path, path):
                if place.stat().st_mode & 0o077:
                    mode = 700 if place is self.path else 600
                    raise ConfigurationError(f"{place}: others can reach it; run chmod {mode} {place}")
            content = path.read_bytes()
        except FileNotFoundError:
            raise not_registered(self._config) from None
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; {self._remedy}") from None
        try:
            sealed = msgspec.json.decode(content, type=_Sealed)
        except (msgspec.MsgspecError, ValueError, RecursionError, ConfigurationError):
            raise ConfigurationError(f"{path}: is damaged; {self._remedy}") from None
        try:
            known = self._vault.unseal(sealed.seal, _CONTEXT)
        except StoreUnavailable:
            known = b""
        if known != _digest(sealed.record):
            raise ConfigurationError(
                f"{path}: was altered or comes from another site, or `kek` is not this site's key-encryption key; "
                f"{self._remedy}"
            )
        return sealed.record

    def _check_names(self, record: PeerRecord) -> None:
        config, registration = self._config, self._config.registration
        for what, found, expected in (
            ("this site is", config.file.name, record.site),
            ("the peer is", config.peer, record.peer),
            ("the link is", registration.link, record.link),
            ("the bootstrap is", registration.bootstrap, record.bootstrap),
        ):
            if found != expected:
                raise ConfigurationError(f"{self.path}: {what} {found!r}, registered is {expected!r}; {self._remedy}")
        if registration.digest().hex() != record.registration_digest:
            raise ConfigurationError(
                f"{config.path(config.file.link.registration)}: was changed since {record.approver!r} registered "
                f"{record.peer!r}; compare with the other site, then {self._remedy}"
            )

    def _check_file(self, name: str, digest: str) -> None:
        path = self.path / name
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; {self._remedy}") from None
        if found != digest:
            raise ConfigurationError(f"{path}: was changed since it was registered; {self._remedy}")

    def write(self, record: PeerRecord, files: Mapping[str, bytes]) -> None:
        """Put a registration in the place of whatever was there. Raises ConfigurationError, StoreUnavailable.

        A crash leaves the old one, the new one or none; never a mixture.
        """
        new, old = (self.path.with_name(f".{self.path.name}.{word}") for word in ("new", "old"))
        self.check_place()
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700)
            for name, content in files.items():
                replace_file(new / name, content)
            replace_file(new / RECORD, self._sealed(record))
            shutil.rmtree(old, ignore_errors=True)
            if self.path.exists():
                self.path.rename(old)
            new.rename(self.path)
            sync_directory(self.path.parent)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: {error.strerror}; the registration was not written") from None

    def check_place(self) -> None:
        """Refuse a directory that holds something else. Raises ConfigurationError."""
        try:
            taken = self.path.exists() and not self.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        except OSError as error:
            raise ConfigurationError(f"{self.path}: {error.strerror}") from None
        if taken:
            raise ConfigurationError(f"{self.path}: holds something else than a registration; name another directory")

    def refresh(self, record: PeerRecord, files: Mapping[str, bytes]) -> None:
        """Replace single files and then the record; a crash in between is refused at the next start, and repairable."""
        for name, content in files.items():
            replace_file(self.path / name, content)
        replace_file(self.path / RECORD, self._sealed(record))

    def _sealed(self, record: PeerRecord) -> bytes:
        sealed = _Sealed(record, self._vault.seal(_digest(record), _CONTEXT))
        return msgspec.json.format(msgspec.json.encode(sealed)) + b"\n"


def _cut_short(entry: AuditEntry, repaired: frozenset[str]) -> object:
    """Return which record a revocation was about to change, if replacing these files again would complete it."""
    files = entry.details.get("files")
    whole = entry.event == "revocation" and isinstance(files, dict) and files.keys() <= repaired
    return entry.details.get("after") if whole else None


def _digest(record: PeerRecord) -> bytes:
    return hashlib.sha256(msgspec.json.encode(record, order="sorted")).digest()
