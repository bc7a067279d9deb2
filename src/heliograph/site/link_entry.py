"""What SITE.toml says of a link: [link] with [module], and each of [[further_links]], which has all that is its own.

[[further_links]]
registration = "links/c/link.json"
trust = "links/c/trust"
book = "links/c/psk.book"
role = "receiver"
listen = "192.0.2.1:7011"
peer_id = "kme-site-c"           # the other site's key manager
store = "links/c/store/site.db"  # its keys, pads and ledgers, apart from those of every other link
anchor = "links/c/anchor"
module = { name = "simulated-receiver", settings = { address = "unix:/run/heliograph/light-c.sock" } }

and everything else that [link] may have (ADR 0054).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from heliograph.authentication.registration import anchor_kinds
from heliograph.errors import ConfigurationError
from heliograph.protocol.registration import LinkRegistration

__all__ = [
    "FurtherLinkEntry",
    "KeyPairEntry",
    "LinkEntry",
    "ModuleEntry",
    "PkiEntry",
    "check_bootstrap",
    "check_paths",
    "parse_address",
]

_ADDRESS = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")


class KeyPairEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate and its key."""

    certificate: str
    key: str


class PkiEntry(KeyPairEntry, frozen=True, forbid_unknown_fields=True):
    """The chain, this site's own certificate first; ``root`` if the chain leaves it out."""

    root: str | None = None


class ModuleEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A QKD module: an entry point of the group heliograph.modules."""

    name: str
    settings: dict[str, Any] = {}


class LinkEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One end of a link; paths are relative to SITE.toml."""

    registration: str
    role: Literal["transmitter", "receiver"]
    trust: str = "trust"
    book: str | None = None
    pki: PkiEntry | None = None
    openpgp: KeyPairEntry | None = None
    dial: str | None = None
    listen: str | None = None
    block_seconds: float = 120.0
    keys_max: int = 20_000
    in_flight: int = 2

    def check(self, where: str) -> None:
        """Refuse what no link could be run by. Raises ConfigurationError, which begins with ``where``."""
        if (self.dial is None) == (self.listen is None):
            raise ConfigurationError(f"{where} needs exactly one of dial and listen")
        dialled = self.listen if self.dial is None else self.dial
        assert dialled is not None
        parse_address(dialled, where)
        if not 1 <= self.keys_max <= 10_000_000:
            raise ConfigurationError(f"{where} keys_max = {self.keys_max}: between 1 and 10000000")
        if not 1 <= self.in_flight <= 8:
            raise ConfigurationError(f"{where} in_flight = {self.in_flight}: between 1 and 8 blocks")
        if not 1 <= self.block_seconds <= 86_400:
            raise ConfigurationError(f"{where} block_seconds = {self.block_seconds}: between 1 and 86400")

    def paths(self, table: str) -> dict[str, str]:
        """Return the files of its own, by the names that a person finds them under; ``table``: that of this entry."""
        named = {f"[{table}] trust": self.trust}
        if self.book is not None:
            named[f"[{table}] book"] = self.book
        for entry, pair in ((f"[{table}.pki]", self.pki), (f"[{table}.openpgp]", self.openpgp)):
            if pair is not None:
                named |= {f"{entry} certificate": pair.certificate, f"{entry} key": pair.key}
        if self.pki is not None and self.pki.root is not None:
            named[f"[{table}.pki] root"] = self.pki.root
        return named


class FurtherLinkEntry(LinkEntry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of the further links. ``peer_id``: the other site's KME; ``store`` and ``anchor``: as those of the site.

    ``etsi004_peer_dial``: where that KME listens for messages about streams; left out: its pairs have no streams.
    """

    trust: str
    peer_id: str
    store: str
    anchor: str
    module: ModuleEntry
    etsi004_peer_dial: str | None = None

    def link(self) -> LinkEntry:
        """Return what [link] would say of it."""
        return LinkEntry(**{name: getattr(self, name) for name in LinkEntry.__struct_fields__})


def check_bootstrap(where: str, link: LinkEntry, registration: LinkRegistration, table: str) -> None:
    """Refuse credentials that the registered bootstrap lacks, or does not use: neither is a silent second way in."""
    kinds = anchor_kinds(registration.bootstrap)
    for kind, entry, given in (
        ("psk", f"[{table}] book", link.book),
        ("pki", f"[{table}.pki]", link.pki),
        ("openpgp", f"[{table}.openpgp]", link.openpgp),
    ):
        if kind in kinds and given is None:
            raise ConfigurationError(
                f"{where}: {entry} is missing: the registration says bootstrap {registration.bootstrap!r}"
            )
        if kind not in kinds and given is not None:
            raise ConfigurationError(
                f"{where}: {entry} is given, but the registration says bootstrap {registration.bootstrap!r}: remove it"
            )


def check_paths(where: str, directory: Path, named: Mapping[str, str]) -> None:
    """Refuse files that are none or the same; ``named``: paths by entry, relative to ``directory``."""
    paths = {entry: (directory / value).absolute() for entry, value in named.items()}
    for entry, path in paths.items():
        if not named[entry] or path == directory or "\0" in named[entry]:
            raise ConfigurationError(f"{where}: {entry} = {named[entry]!r}: name a file")
    if len(set(paths.values())) != len(named):
        raise ConfigurationError(f"{where}: {', '.join(named)} must be different files")
    if paths["anchor"].parent == paths["store"].parent:
        raise ConfigurationError(
            f"{where}: anchor = {named['anchor']!r}: keep it outside the store's directory and backup"
        )


def parse_address(text: str, where: str) -> tuple[str, int]:
    """Read "host:port", an IPv6 address in brackets. Raises ConfigurationError."""
    read = _ADDRESS.fullmatch(text)
    if read is None or not 0 < int(read["port"]) < 65536:
        raise ConfigurationError(f"{where} address {text!r}: write host:port, such as 127.0.0.1:7001 or [::1]:7001")
    return read["bracketed"] or read["host"], int(read["port"])
