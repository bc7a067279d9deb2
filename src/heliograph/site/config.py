"""SITE.toml and the link's registration: read once at the start, checked whole, wrong in one line.

name = "site-a"
store = "store/site.db"          # paths are relative to this file
kek = "kek"                      # key-encryption key, mode 0600; [seal], optional: site/seal_entry.py
anchor = "anchor"                # excluded from backup, outside the store
status = "status.sock"
log_level = "info"               # optional, as --log-level

[link]
registration = "link.json"       # the same on both sites
trust = "trust"                  # what `heliograph site register` wrote about the peer
book = "psk.book"                # this site's copy of the key book, if the bootstrap has a book
role = "transmitter"             # or "receiver"
dial = "192.0.2.2:7001"          # or listen = "..."

[link.pki]                       # if the bootstrap has certificates
certificate = "identity/link.pem"  # the chain, this site's own certificate first
key = "identity/link.key"
root = "identity/root.pem"         # if the chain leaves its root out

[link.openpgp]                   # if the bootstrap has OpenPGP keys
certificate = "identity/openpgp.asc"
key = "identity/openpgp.key"

[module]
name = "simulated-transmitter"   # an entry point of the group heliograph.modules
settings = { address = "unix:/run/heliograph/light.sock" }

[kme]
id = "kme-a"                     # further entries: site/supply_plan.py
peer_id = "kme-b"
listen = "127.0.0.1:8443"
certificate = "pki/kme.pem"
key = "pki/kme.key"
ca = "pki/ca.pem"

[agent]                          # optional: the built-in encryptor
sae = "sae-a"
peer_sae = "sae-b"
certificate = "pki/sae.pem"
key = "pki/sae.key"
tunnel = { role = "initiator", control = "192.0.2.2:7002", ... }

[boundary]                       # optional: site/boundary_entry.py
[delivery]                       # optional: site/delivery_entry.py
[skip]                           # optional, as are the other protocols of site/protocol_entries.py
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from heliograph.agent.config import AgentConfig
from heliograph.authentication.registration import anchor_kinds
from heliograph.consumer.keys import KEY_BYTES
from heliograph.errors import ConfigurationError, NotPermitted
from heliograph.kme.boundary import Way
from heliograph.protocol.registration import LinkRegistration
from heliograph.site.audit import AUDIT_NAME
from heliograph.site.boundary_entry import SOCKET_PATH_BYTES_MAX, BoundaryEntry, SiteBoundary
from heliograph.site.clocks import MonotonicClock
from heliograph.site.delivery_entry import DeliveryEntry, check_alone
from heliograph.site.protocol_entries import Etsi004Entry, Etsi020Entry, SkipEntry
from heliograph.site.seal_entry import SealEntry
from heliograph.site.supply_plan import KmeEntry, SupplyPlan, plan_quotas, plan_supply
from heliograph.site.toml_file import read_toml

__all__ = [
    "AGENT_KEY_BITS",
    "SOCKET_PATH_BYTES_MAX",
    "LogLevel",
    "SiteConfig",
    "parse_address",
    "read_registration",
    "read_site",
]

AGENT_KEY_BITS = 8 * KEY_BYTES

LogLevel = Literal["debug", "info", "warning", "error"]


class _KeyPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: str
    key: str


class _Pki(_KeyPair, frozen=True, forbid_unknown_fields=True):
    root: str | None = None


class _Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    registration: str
    role: Literal["transmitter", "receiver"]
    trust: str = "trust"
    book: str | None = None
    pki: _Pki | None = None
    openpgp: _KeyPair | None = None
    dial: str | None = None
    listen: str | None = None
    block_seconds: float = 120.0
    keys_max: int = 20_000
    in_flight: int = 2


class _Module(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    settings: dict[str, Any] = {}


class _Agent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sae: str
    peer_sae: str
    tunnel: dict[str, Any]
    certificate: str | None = None
    key: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    store: str
    kek: str
    anchor: str
    status: str
    link: _Link
    module: _Module
    kme: KmeEntry
    log_level: LogLevel | None = None
    seal: SealEntry = SealEntry()
    agent: _Agent | None = None
    boundary: BoundaryEntry | None = None
    skip: SkipEntry | None = None
    etsi020: Etsi020Entry | None = None
    etsi004: Etsi004Entry | None = None
    delivery: DeliveryEntry | None = None


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """A site's configuration, checked. ``toml``: SITE.toml as given; relative paths start from ``directory``."""

    toml: Path
    directory: Path
    file: _File
    registration: LinkRegistration

    def path(self, entry: str) -> Path:
        """Return the absolute path of an entry."""
        return (self.directory / entry).absolute()

    @property
    def peer(self) -> str:
        """The other site's registered name."""
        here = self.registration
        return here.receiver_site if self.file.link.role == "transmitter" else here.transmitter_site

    @property
    def trust(self) -> Path:
        """The directory in which the peer is registered."""
        return self.path(self.file.link.trust)

    @property
    def local_saes(self) -> frozenset[str]:
        """The SAEs of this site."""
        return self.supply().saes | (self.file.etsi020.local_saes if self.file.etsi020 else set())

    def supply(self) -> SupplyPlan:
        """Return who may have keys at this site. Raises ConfigurationError."""
        return plan_supply(self.file.kme, self.registration, is_transmitter=self.file.link.role == "transmitter")

    def boundary(self) -> SiteBoundary:
        """Return the declared boundary. Raises ConfigurationError."""
        psk = [key.sae for key in self.file.skip.psk.values()] if self.file.skip else []
        return SiteBoundary.read(self.file.boundary, self.directory, self.local_saes, psk)

    @property
    def audit(self) -> Path:
        """What operators did to this site's trust."""
        return self.path(AUDIT_NAME)


def read_site(path: Path) -> SiteConfig:
    """Read SITE.toml and the registration it names. Raises ConfigurationError: file, entry, remedy."""
    document = read_toml(path, "SITE.toml", "site", "heliograph site init")
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}; correct that entry") from None
    registration = read_registration(path.parent / file.link.registration)
    config = SiteConfig(path, path.parent.absolute(), file, registration)
    _check(path, config)
    return config


def read_registration(path: Path) -> LinkRegistration:
    """Read a link's registration. Raises ConfigurationError."""
    try:
        data = path.read_bytes()
        registration = msgspec.json.decode(data, type=LinkRegistration)
    except OSError as error:
        raise ConfigurationError(
            f"registration {path}: {error.strerror}; put link.json there, as `site init` made it"
        ) from None
    except (msgspec.MsgspecError, ValueError, RecursionError, ConfigurationError) as error:
        raise ConfigurationError(f"registration {path}: {error}; restore it, as `site init` made it") from None
    if unknown := _unknown(msgspec.json.decode(data), msgspec.to_builtins(registration)):
        raise ConfigurationError(f"registration {path}: unknown entry {unknown}; correct or remove it")
    return registration


def _unknown(given: object, understood: object) -> str:
    """Return the first entry that was written but not understood: a misspelt limit must not be ignored."""
    if isinstance(given, Mapping) and isinstance(understood, Mapping):
        for name, value in given.items():
            if name not in understood:
                return repr(name)
            if found := _unknown(value, understood[name]):
                return f"{found} in {name!r}"
    elif isinstance(given, list) and isinstance(understood, list | tuple):
        for one, other in zip(given, understood, strict=True):
            if found := _unknown(one, other):
                return found
    return ""


def _check(path: Path, config: SiteConfig) -> None:
    """Refuse what contradicts itself or the registration."""
    file, registration = config.file, config.registration
    link = file.link
    if (link.dial is None) == (link.listen is None):
        raise ConfigurationError(f"{path}: [link] needs exactly one of dial and listen")
    expected = registration.transmitter_site if link.role == "transmitter" else registration.receiver_site
    if file.name != expected:
        raise ConfigurationError(
            f"{path}: name = {file.name!r} with role {link.role!r}, but the registration says {expected!r}"
        )
    dialled = link.listen if link.dial is None else link.dial
    assert dialled is not None
    parse_address(dialled, f"{path}: [link]")
    parse_address(file.kme.listen, f"{path}: [kme]")
    try:
        file.kme.check()
        config.supply()
        plan_quotas(file.kme, MonotonicClock())
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not 1 <= link.keys_max <= 10_000_000:
        raise ConfigurationError(f"{path}: [link] keys_max = {link.keys_max}: between 1 and 10000000")
    if not 1 <= link.in_flight <= 8:
        raise ConfigurationError(f"{path}: [link] in_flight = {link.in_flight}: between 1 and 8 blocks")
    if not 1 <= link.block_seconds <= 86_400:
        raise ConfigurationError(f"{path}: [link] block_seconds = {link.block_seconds}: between 1 and 86400")
    _check_bootstrap(path, config)
    _check_paths(path, config)
    _check_agent(path, config)
    _check_protocols(path, config)
    if registration.opening_blocks < 0 or not 0 < registration.eps_total_max < 1:
        raise ConfigurationError(
            f"{path.parent / link.registration}: opening_blocks = {registration.opening_blocks}: not below 0; "
            f"eps_total_max = {registration.eps_total_max}: between 0 and 1"
        )


def _check_bootstrap(path: Path, config: SiteConfig) -> None:
    """Refuse credentials that the registered bootstrap lacks, or does not use: neither is a silent second way in."""
    link, kinds = config.file.link, anchor_kinds(config.registration.bootstrap)
    for kind, entry, given in (
        ("psk", "[link] book", link.book),
        ("pki", "[link.pki]", link.pki),
        ("openpgp", "[link.openpgp]", link.openpgp),
    ):
        if kind in kinds and given is None:
            raise ConfigurationError(
                f"{path}: {entry} is missing: the registration says bootstrap {config.registration.bootstrap!r}"
            )
        if kind not in kinds and given is not None:
            raise ConfigurationError(
                f"{path}: {entry} is given, but the registration says bootstrap {config.registration.bootstrap!r}: "
                "remove it"
            )


def _check_paths(path: Path, config: SiteConfig) -> None:
    file, link = config.file, config.file.link
    named = {"store": file.store, "kek": file.kek, "anchor": file.anchor, "status": file.status}
    named |= {"[link] trust": link.trust, "the audit log": AUDIT_NAME}
    if link.book is not None:
        named["[link] book"] = link.book
    for entry, pair in (("[link.pki]", link.pki), ("[link.openpgp]", link.openpgp)):
        if pair is not None:
            named |= {f"{entry} certificate": pair.certificate, f"{entry} key": pair.key}
    if link.pki is not None and link.pki.root is not None:
        named["[link.pki] root"] = link.pki.root
    for entry, value in named.items():
        if not value or config.path(value) == config.directory or "\0" in value:
            raise ConfigurationError(f"{path}: {entry} = {value!r}: name a file")
    if len({config.path(value) for value in named.values()}) != len(named):
        raise ConfigurationError(f"{path}: {', '.join(named)} must be different files")
    if config.path(file.anchor).parent == config.path(file.store).parent:
        raise ConfigurationError(f"{path}: anchor = {file.anchor!r}: keep it outside the store's directory and backup")
    if len(os.fsencode(config.path(file.status))) > SOCKET_PATH_BYTES_MAX:
        raise ConfigurationError(
            f"{path}: status = {file.status!r}: the path is too long for a Unix socket; take a shorter one"
        )


def _both_ways(agent: _Agent) -> tuple[tuple[str, str], tuple[str, str]]:
    return (agent.sae, agent.peer_sae), (agent.peer_sae, agent.sae)


def _check_agent(path: Path, config: SiteConfig) -> None:
    agent, registration, file_boundary = config.file.agent, config.registration, config.file.boundary
    try:
        config.boundary()
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if agent is None:
        return
    pairs = {(p.master, p.slave) for p in (*registration.transmitter_pairs, *registration.receiver_pairs)}
    if not {*_both_ways(agent)} & pairs:
        raise ConfigurationError(
            f"{path}: [agent] sae = {agent.sae!r}, peer_sae = {agent.peer_sae!r}: the registration has no such pair"
        )
    sizes = config.supply().sizes
    if any(AGENT_KEY_BITS not in sizes.of(*names) for names in {*_both_ways(agent)} & pairs):
        raise ConfigurationError(
            f"{path}: [agent] needs keys of {AGENT_KEY_BITS} bits, and the registration gives {agent.sae!r} with "
            f"{agent.peer_sae!r} keys of other sizes only: add {AGENT_KEY_BITS} to the pair's key_sizes, at both sites"
        )
    in_process = file_boundary is not None and agent.sae in file_boundary.in_process
    if in_process == (agent.certificate is not None) or (agent.certificate is None) != (agent.key is None):
        raise ConfigurationError(
            f"{path}: [agent] certificate and key: needed, unless [boundary] in_process lists {agent.sae!r}, and then "
            "not allowed: a consumer has one way to its keys"
        )
    try:
        config.boundary().boundary.check(agent.sae, Way.IN_PROCESS if in_process else Way.CERTIFICATE)
    except NotPermitted as error:
        raise ConfigurationError(f"{path}: [agent] sae = {agent.sae!r}: {error}") from None
    try:
        AgentConfig.from_mapping(agent.tunnel)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: [agent] tunnel: {error}") from None


def _check_protocols(path: Path, config: SiteConfig) -> None:
    """Refuse a protocol's entry that could not be served."""
    try:
        config.file.seal.check()
        if (delivery := config.file.delivery) is not None:
            delivery.check()
            for front_end in delivery.front_ends:
                parse_address(front_end.listen, "[delivery] listen")
            file = config.file
            others = {"[skip]": file.skip, "[etsi004]": file.etsi004, "[etsi020]": file.etsi020}
            check_alone(file.kme, file.boundary, others)
        if config.file.skip is not None:
            config.file.skip.check()
            for entry in ("listen", "psk_listen"):
                if (address := getattr(config.file.skip, entry)) is not None:
                    parse_address(address, f"[skip] {entry}")
        if (streams := config.file.etsi004) is not None:
            link = config.registration
            pairs = [p for p in (*link.transmitter_pairs, *link.receiver_pairs) if not p.is_group]
            streams.check(min((link.sizes_of(p)[0] for p in pairs), default=link.key_size_bits))
            for entry in ("listen", "peer_listen", "peer_dial"):
                parse_address(getattr(streams, entry), f"[etsi004] {entry}")
        if config.file.etsi020 is not None:
            config.file.etsi020.declared()
            parse_address(config.file.etsi020.listen, "[etsi020] listen")
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def parse_address(text: str, where: str) -> tuple[str, int]:
    """Read "host:port". Raises ConfigurationError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host.strip("[]") or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise ConfigurationError(f"{where} address {text!r}: write host:port, such as 127.0.0.1:7001")
    return host.strip("[]"), int(port)
