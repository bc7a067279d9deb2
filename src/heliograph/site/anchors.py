"""What a link's trust starts from, put together for its runner: a book, a signer, a peer's trust, as registered."""

from __future__ import annotations

from dataclasses import dataclass, field

from heliograph.errors import ConfigurationError
from heliograph.ports import PeerTrust, Signer, Vault
from heliograph.site.config import SiteConfig
from heliograph.site.credentials import PeerFiles, own_credential, peer_anchors, peer_trust
from heliograph.site.kek import open_kek
from heliograph.site.trust_store import PeerRecord, TrustStore, again
from heliograph.vault.pskfile import PskFile

__all__ = ["SiteAnchors", "open_anchors"]


@dataclass(frozen=True, slots=True)
class SiteAnchors:
    """The registered bootstrap of one site's end of a link.

    ``signer`` and ``trust`` are there exactly if ``method`` has signatures, ``book`` exactly if it has a book.
    ``mark``: 32 bytes that change exactly when an
    anchor of either site does, so that an epoch that another anchor opened can be refused.
    """

    method: str
    signer: Signer | None = field(repr=False)
    trust: PeerTrust | None = field(repr=False)
    book: PskFile | None = field(repr=False)
    record: PeerRecord
    mark: bytes


def open_anchors(config: SiteConfig, kek: Vault | None = None) -> SiteAnchors:
    """Read and check everything that the peer is believed by; nothing is written. ``kek``: the site's, if open.

    Raises ConfigurationError in one line, with the remedy, for a peer that is not registered and for whatever no
    longer is what was registered.
    """
    store = TrustStore(config, kek or open_kek(config))
    record = store.load()
    store.check_audited(record)
    own, peer = {}, {}
    book = None
    if config.file.link.book is not None:
        book = PskFile(config.path(config.file.link.book))
        book.header()
        if record.book is None:
            raise ConfigurationError(f"{store.path}: no key book is registered; {again(config)}")
        book.check(record.book)
        own["psk"] = peer["psk"] = record.book.digest()
    files = PeerFiles.registered(store.path, record)
    credential, trust = own_credential(config), peer_trust(config, files)
    if credential is not None:
        own |= credential.anchors
        peer |= peer_anchors(files)
    for whose, found, known in (("this site's", own, record.own_anchors), ("the peer's", peer, record.peer_anchors)):
        if found != known:
            raise ConfigurationError(f"{store.path}: {whose} anchor is another one than registered; {again(config)}")
    return SiteAnchors(
        method=config.registration.bootstrap,
        signer=credential.signer if credential else None,
        trust=trust,
        book=book,
        record=record,
        mark=record.anchors_mark(),
    )
