"""What people do before two sites can meet, done for a rehearsal: books carried, CAs and introducers asked, peers
registered. Everybody's secrets are on one machine here, as nobody's would be.
"""  # noqa: D205  - one sentence of two lines

from __future__ import annotations

from pathlib import Path

from heliograph.authentication.registration import anchor_kinds
from heliograph.errors import ConfigurationError
from heliograph.protocol.registration import LinkRegistration
from heliograph.site.config import read_site
from heliograph.site.credentials import PeerFiles
from heliograph.site.register import register
from heliograph.testing.openpgp_web import OpenPgpWeb
from heliograph.vault.pskfile import create_book, write_book
from heliograph.vault.randomness import SystemRandomness
from heliograph.vault.rehearsal_ca import RehearsalCa

__all__ = ["APPROVER", "introduce"]

APPROVER = "the rehearsal"
_HOMES = ("a", "b")
_ALGORITHM, _CA_DAYS, _DAYS = "ed25519", 30.0, 7.0
_INTRODUCERS, _THRESHOLD = 3, 2


def introduce(directory: Path, registration: LinkRegistration) -> None:
    """Give both sites, ``a`` and ``b`` below ``directory``, what trust starts from, and register each at the other.

    Raises ConfigurationError, for instance without GnuPG.
    """
    names = (registration.transmitter_site, registration.receiver_site)
    kinds = anchor_kinds(registration.bootstrap)
    files = (PeerFiles(), PeerFiles())
    if "psk" in kinds:
        _carry_book(directory)
    if "pki" in kinds:
        files = _exchange_roots(directory, names)
    if "openpgp" in kinds:
        files = _exchange_keys(directory, names)
    shown = [
        register(read_site(directory / home / "SITE.toml"), APPROVER, one).fingerprint
        for home, one in zip(_HOMES, files, strict=True)
    ]
    if len(set(shown)) != 1:
        raise ConfigurationError(f"{directory}: the two sites show different fingerprints")


def _carry_book(directory: Path) -> None:
    """Make one book, hand a copy to each site, keep none."""
    original = directory / "book"
    create_book(original, SystemRandomness())
    for home in _HOMES:
        write_book(directory / home / "psk.book", original.read_bytes())
    original.unlink()


def _exchange_roots(directory: Path, names: tuple[str, str]) -> tuple[PeerFiles, PeerFiles]:
    """Make a CA for each site, and let each site bring its root and lists to the other."""
    brought = []
    for home, name in zip(_HOMES, names, strict=True):
        where = directory / f"ca-{home}"
        authority = RehearsalCa.create(where, f"CA of {name}", _ALGORITHM, _CA_DAYS)
        identity = directory / home / "identity"
        authority.issue_to(identity, name, _DAYS)
        root = (where / "root.pem").read_bytes()
        (identity / "root.pem").write_bytes(root)
        (where / "crl.pem").write_bytes(authority.revocation_lists(_DAYS))
        brought.append(PeerFiles(ca=where / "root.pem", crl=where / "crl.pem"))
    return brought[1], brought[0]


def _exchange_keys(directory: Path, names: tuple[str, str]) -> tuple[PeerFiles, PeerFiles]:
    """Make a key for each site and introducers who certify both, and write what each site would have exported."""
    people = directory / "people"
    people.mkdir(mode=0o700)
    with OpenPgpWeb() as web:
        introducers = [web.make(f"Introducer {number} <{number}@example>") for number in range(1, _INTRODUCERS + 1)]
        users = [f"{name} <{name}@example>" for name in names]
        keys = [web.make(user, usage="sign") for user in users]
        for key in keys:
            for introducer in introducers[:_THRESHOLD]:
                web.certify(introducer, key)
        (people / "introducers.asc").write_bytes(web.public(*introducers, armour=True))
        brought = []
        for home, key, user in zip(_HOMES, keys, users, strict=True):
            identity = directory / home / "identity"
            (identity / "openpgp.asc").write_bytes(web.public(key, armour=True))
            secret = identity / "openpgp.key"
            secret.touch(mode=0o600)
            secret.write_bytes(web.secret(key))
            brought.append(
                PeerFiles(
                    introducers=people / "introducers.asc",
                    threshold=_THRESHOLD,
                    user_id=user,
                    certificate=identity / "openpgp.asc",
                )
            )
    return brought[1], brought[0]
