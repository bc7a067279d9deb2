"""The act by which an operator vouches for a link's peer, and the later one that brings revocations up to date."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from heliograph.authentication.anchors.book_marks import BookMarks
from heliograph.authentication.anchors.words import grouped
from heliograph.errors import ConfigurationError
from heliograph.site.audit import AuditLog, check_approver
from heliograph.site.config import SiteConfig
from heliograph.site.credentials import (
    PeerFiles,
    check_given,
    check_refreshed,
    own_credential,
    peer_anchors,
    peer_trust,
    read_given,
)
from heliograph.site.kek import open_kek
from heliograph.site.trust_store import PeerRecord, TrustStore, fingerprint_of, not_registered, place_of
from heliograph.vault.openpgp_trust import KEYS_BYTES_MAX, OpenPgpTrust
from heliograph.vault.pskfile import PskFile
from heliograph.vault.revocation_files import tells_of_a_revocation
from heliograph.vault.x509_trust import anchor_fingerprint

__all__ = ["Registered", "register", "revoke"]


@dataclass(frozen=True, slots=True)
class Registered:
    """What a registration wrote. ``anchors_changed``: an earlier epoch was opened under another anchor."""

    record: PeerRecord
    fingerprint: bytes
    anchors_changed: bool


def register(config: SiteConfig, approver: str, files: PeerFiles, *, replace: bool = False) -> Registered:
    """Write the peer's identity and anchor into the trust store. Raises ConfigurationError, nothing written then.

    Whatever is wrong with a file is said before anything is written; the audit log tells of the act before it is done.
    """
    check_approver(approver)
    store = TrustStore(config, open_kek(config))
    before = _before(store, replace=replace)
    known = PeerFiles() if before is None else PeerFiles.registered(store.path, before)
    files = _with_registered_revocations(files, known)
    own, peer, marks = {}, {}, None
    if config.file.link.book is not None:
        marks = _book_marks(config.path(config.file.link.book), before)
        own["psk"] = peer["psk"] = marks.digest()
    credential, trust = own_credential(config), peer_trust(config, files)
    if credential is not None:
        own |= credential.anchors
        peer |= peer_anchors(files)
    same = before is not None and before.peer_anchors == peer
    check_given(config, files, known if same else PeerFiles(), trust)
    if credential is not None and own.get("openpgp") and own["openpgp"] == peer["openpgp"]:
        raise ConfigurationError(f"{files.certificate}: is this site's own certificate; name the peer's")
    fingerprint = fingerprint_of(config, own, peer)
    contents = {name: read_given(path) for name, path in files.given().items()}
    _keep_revocations(known, contents)
    store.check_place()
    registration = config.registration
    record = PeerRecord(
        site=config.file.name,
        peer=config.peer,
        link=registration.link,
        bootstrap=registration.bootstrap,
        registration_digest=registration.digest().hex(),
        own_anchors=own,
        peer_anchors=peer,
        fingerprint=fingerprint.hex(),
        approver=approver,
        time=0.0,
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        audit_digest="",
        book=marks,
        crl_required=files.crl_required,
        threshold=files.threshold,
        user_id=files.user_id,
        introducers=trust.introducers() if isinstance(trust, OpenPgpTrust) else (),
    )
    changed = before is not None and before.anchors_mark() != record.anchors_mark()
    entry = AuditLog(config.audit).append(
        "re-registration" if store.exists() else "registration",
        approver,
        {
            "link": record.link,
            "peer": record.peer,
            "bootstrap": record.bootstrap,
            "registration": record.registration_digest,
            "own anchors": own,
            "peer anchors": peer,
            "fingerprint": grouped(fingerprint),
            "files": record.files,
            "revocation lists required": record.crl_required,
            "introducers": list(record.introducers),
            "threshold": record.threshold,
            "user ID": record.user_id,
            "anchors changed": changed,
            **place_of(config),
        },
    )
    record = msgspec.structs.replace(record, time=entry.time, audit_digest=entry.digest())
    store.write(record, contents)
    return Registered(record, fingerprint, changed)


def revoke(config: SiteConfig, approver: str, files: PeerFiles) -> PeerRecord:
    """Replace revocation lists and OCSP responses, add OpenPGP revocations. Raises ConfigurationError, nothing written.

    ``files``: only ``crl``, ``ocsp`` and ``revocations``. The anchor stays, so nobody has to compare anything. A
    running site honours them at its next connection.
    """
    check_approver(approver)
    store = TrustStore(config, open_kek(config))
    if not store.exists():
        raise not_registered(config)
    if not files.given():
        raise ConfigurationError("nothing to refresh: give --crl, --ocsp or --revocation")
    names = frozenset(files.given())
    record = store.load(unless=names)
    store.check_audited(record, repaired=names)
    known = PeerFiles.registered(store.path, record)
    check_refreshed(config, known, files)
    contents = {name: read_given(path) for name, path in files.given().items()}
    _keep_revocations(known, contents)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    entry = AuditLog(config.audit).append(
        "revocation",
        approver,
        {"link": record.link, "peer": record.peer, "files": digests, "after": record.audit_digest, **place_of(config)},
    )
    record = msgspec.structs.replace(record, files=record.files | digests, audit_digest=entry.digest())
    store.refresh(record, contents)
    return record


def _with_registered_revocations(files: PeerFiles, known: PeerFiles) -> PeerFiles:
    """Return the files with the revocations registered of the same peer, where the operator names none.

    Raises ConfigurationError for ``--no-crl`` while a list of the same CA is registered.
    """
    if files.introducers is not None and files.revocations is None:
        files = dataclasses.replace(files, revocations=known.revocations)
    if files.ca is None or known.ca is None or anchor_fingerprint(files.ca) != anchor_fingerprint(known.ca):
        return files
    if files.crl is None and known.crl is not None:
        if not files.crl_required:
            raise ConfigurationError(
                "--no-crl: a revocation list of this CA is registered, and going without could take a revocation back; "
                "give --crl with the newest"
            )
        files = dataclasses.replace(files, crl=known.crl)
    if files.ocsp is None and known.ocsp is not None and tells_of_a_revocation(known.ocsp):
        files = dataclasses.replace(files, ocsp=known.ocsp)
    return files


def _keep_revocations(known: PeerFiles, contents: dict[str, bytes]) -> None:
    """Add to what is registered: no later file takes a revocation back by lacking it."""
    if "revocations.asc" in contents and known.revocations is not None:
        earlier, added = read_given(known.revocations), contents["revocations.asc"]
        both = earlier if added in earlier else earlier.rstrip(b"\n") + b"\n" + added
        if len(both) > KEYS_BYTES_MAX:
            raise ConfigurationError(
                f"with what is registered the revocations have {len(both)} bytes, over {KEYS_BYTES_MAX}: "
                "export them with --export-options export-minimal"
            )
        contents["revocations.asc"] = both


def _before(store: TrustStore, *, replace: bool) -> PeerRecord | None:
    """Return what is registered, if it is sound. Raises ConfigurationError if it may not be replaced."""
    if not store.exists():
        return None
    try:
        before = store.load()
    except ConfigurationError:
        before = None
    if not replace:
        who = f" by {before.approver!r}" if before else ", but not soundly"
        raise ConfigurationError(
            f"{store.path}: the peer is registered already{who}; add --replace to put this registration in its place"
        )
    return before


def _book_marks(path: Path, before: PeerRecord | None) -> BookMarks:
    """Return the marks of an unused book, or those taken of the same book when it was unused."""
    book = PskFile(path)
    if before is not None and before.book is not None:
        try:
            book.check(before.book)
        except ConfigurationError:
            return book.marks()
        return before.book
    return book.marks()
