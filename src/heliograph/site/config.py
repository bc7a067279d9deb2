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

[[further_links]]                # optional: links to other sites, or more to the same: site/link_entry.py
[boundary]                       # optional: site/boundary_entry.py
[delivery]                       # optional: site/delivery_entry.py
[skip]                           # optional, as are the other protocols of site/protocol_entries.py
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from heliograph.agent.config import AgentConfig
from heliograph.consumer.keys import KEY_BYTES
from heliograph.errors import ConfigurationError, NotPermitted
from heliograph.kme.boundary import Way
from heliograph.protocol.registration import LinkRegistration, SaePair
from heliograph.site.audit import AUDIT_NAME
from heliograph.site.boundary_entry import SOCKET_PATH_BYTES_MAX, BoundaryEntry, SiteBoundary
from heliograph.site.clocks import MonotonicClock
from heliograph.site.delivery_entry import DeliveryEntry, check_alone
from heliograph.site.link_entry import (
    FurtherLinkEntry,
    LinkEntry,
    ModuleEntry,
    check_bootstrap,
    check_paths,
    parse_address,
)
from heliograph.site.protocol_entries import Etsi004Entry, Etsi020Entry, SkipEntry
from heliograph.site.registration_file import read_registration
from heliograph.site.seal_entry import SealEntry
from heliograph.site.several_links import LinkPlace, check_apart, merge_plans
from heliograph.site.supply_plan import KmeEntry, SupplyPlan, check_quotas, plan_link, plan_quotas
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
    link: LinkEntry
    module: ModuleEntry
    kme: KmeEntry
    log_level: LogLevel | None = None
    seal: SealEntry = SealEntry()
    agent: _Agent | None = None
    boundary: BoundaryEntry | None = None
    skip: SkipEntry | None = None
    etsi020: Etsi020Entry | None = None
    etsi004: Etsi004Entry | None = None
    delivery: DeliveryEntry | None = None
    further_links: list[FurtherLinkEntry] = []

    def seen_from(self, entry: FurtherLinkEntry) -> _File:
        """Return the file as it would be if ``entry`` were the site's only link, and nobody fetched its keys."""
        return msgspec.structs.replace(
            self,
            store=entry.store,
            anchor=entry.anchor,
            link=entry.link(),
            module=entry.module,
            kme=msgspec.structs.replace(self.kme, peer_id=entry.peer_id, groups=[], quotas=[]),
            further_links=[],
            **dict.fromkeys(("agent", "boundary", "skip", "etsi020", "etsi004", "delivery")),
        )


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """A site's configuration, checked. ``toml``: SITE.toml as given; relative paths start from ``directory``.

    ``further``: the same site as seen from each of its further links, as if it had no other: its store, its anchor,
    its trust. ``link_name``: of the link that such a view is of; empty for the site itself and its first link.
    ``is_view``: one link of several.
    """

    toml: Path
    directory: Path
    file: _File
    registration: LinkRegistration
    further: tuple[SiteConfig, ...] = ()
    link_name: str = ""
    is_view: bool = False

    @property
    def links(self) -> tuple[SiteConfig, ...]:
        """The site as seen from each of its links, the first one first."""
        return (replace(self, further=(), is_view=True), *self.further) if self.further else (self,)

    def of_link(self, name: str | None) -> SiteConfig:
        """Return the site as seen from the link of that name. Raises ConfigurationError; None will do for an only one.

        The name is that of the registration.
        """
        names = [view.registration.link for view in self.links]
        if name is None and not self.further:
            return self
        if name not in names:
            asked = "name one" if name is None else f"{name!r} is no link of this site"
            raise ConfigurationError(f"{self.toml}: --link: {asked}; it has {', '.join(names)}")
        return self.links[names.index(name)]

    @property
    def link_option(self) -> str:
        """What a command for an operator needs to name this link, with a blank in front; empty for an only one."""
        return f" --link {shlex.quote(self.registration.link)}" if self.is_view else ""

    def path(self, entry: str) -> Path:
        """Return the absolute path of an entry."""
        return (self.directory / entry).absolute()

    @property
    def peer(self) -> str:
        """The other site's registered name."""
        here = self.registration
        return here.receiver_site if self.file.link.role == "transmitter" else here.transmitter_site

    @property
    def entries(self) -> tuple[SaePair, ...]:
        """The pairs and groups of SAEs that are registered with this link."""
        return (*self.registration.transmitter_pairs, *self.registration.receiver_pairs)

    @property
    def trust(self) -> Path:
        """The directory in which the peer is registered."""
        return self.path(self.file.link.trust)

    @property
    def local_saes(self) -> frozenset[str]:
        """The SAEs of this site."""
        return self.supply().saes | (self.file.etsi020.local_saes if self.file.etsi020 else set())

    def supply(self) -> SupplyPlan:
        """Return who may have keys at this site, over whichever link. Raises ConfigurationError."""
        return merge_plans(
            [
                plan_link(
                    view.file.kme,
                    view.registration,
                    is_transmitter=view.file.link.role == "transmitter",
                    link=view.link_name,
                )
                for view in self.links
            ]
        )

    def streams_dials(self) -> dict[str, tuple[str, int]]:
        """Return where the other key managers listen for messages about streams, by ``link_name``."""
        first, further = self.file.etsi004, zip(self.further, self.file.further_links, strict=True)
        dials = {} if first is None else {"": parse_address(first.peer_dial, "[etsi004] peer_dial")}
        for view, entry in further:
            if first is not None and entry.etsi004_peer_dial is not None:
                where = "[further_links] etsi004_peer_dial"
                dials[view.link_name] = parse_address(entry.etsi004_peer_dial, where)
        return dials

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
    registration, directory = read_registration(path.parent / file.link.registration), path.parent.absolute()
    further = []
    for entry in file.further_links:
        agreed = read_registration(path.parent / entry.registration)
        further.append(SiteConfig(path, directory, file.seen_from(entry), agreed, (), agreed.link, True))  # noqa: FBT003
    config = SiteConfig(path, directory, file, registration, tuple(further))
    _check(path, config)
    return config


def _check(path: Path, config: SiteConfig) -> None:
    """Refuse what contradicts itself or a registration."""
    for view in config.links:
        _check_link(path, view)
    file = config.file
    parse_address(file.kme.listen, f"{path}: [kme]")
    try:
        for view in config.links:
            view.file.kme.check()
        check_quotas(file.kme, config.supply())
        plan_quotas(file.kme, MonotonicClock())
        check_apart([_place(view) for view in config.links])
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    _check_agent(path, config)
    _check_protocols(path, config)


def _place(view: SiteConfig) -> LinkPlace:
    file = view.file
    files = {"store": file.store, "anchor": file.anchor, "trust": file.link.trust, "book": file.link.book}
    own = {what: view.path(entry) for what, entry in files.items() if entry is not None}
    return LinkPlace(view.registration.link, view.peer, file.kme.peer_id, file.link, file.module, own)


def _check_link(path: Path, view: SiteConfig) -> None:
    """Refuse a link that contradicts itself or its registration."""
    file, link, registration = view.file, view.file.link, view.registration
    where, table = str(path), "link"
    if view.link_name:
        where, table = f"{path}: link {view.link_name!r}", "further_links"
    link.check(f"{where}: [{table}]")
    expected = registration.transmitter_site if link.role == "transmitter" else registration.receiver_site
    if file.name != expected:
        raise ConfigurationError(
            f"{where}: name = {file.name!r} with role {link.role!r}, but the registration says {expected!r}"
        )
    check_bootstrap(where, link, registration, table)
    named = {"store": file.store, "kek": file.kek, "anchor": file.anchor, "status": file.status}
    check_paths(where, view.directory, {**named, "the audit log": AUDIT_NAME, **link.paths(table)})
    if len(os.fsencode(view.path(file.status))) > SOCKET_PATH_BYTES_MAX:
        raise ConfigurationError(
            f"{where}: status = {file.status!r}: the path is too long for a Unix socket; take a shorter one"
        )
    if registration.opening_blocks < 0 or not 0 < registration.eps_total_max < 1:
        raise ConfigurationError(
            f"{path.parent / link.registration}: opening_blocks = {registration.opening_blocks}: not below 0; "
            f"eps_total_max = {registration.eps_total_max}: between 0 and 1"
        )


def _both_ways(agent: _Agent) -> tuple[tuple[str, str], tuple[str, str]]:
    return (agent.sae, agent.peer_sae), (agent.peer_sae, agent.sae)


def _check_agent(path: Path, config: SiteConfig) -> None:
    agent, file_boundary = config.file.agent, config.file.boundary
    try:
        config.boundary()
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if agent is None:
        return
    pairs = {(p.master, p.slave) for link in config.links for p in link.entries}
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
            check_alone(file.kme, file.boundary, others, links=1 + len(file.further_links))
        if config.file.skip is not None:
            config.file.skip.check()
            for entry in ("listen", "psk_listen"):
                if (address := getattr(config.file.skip, entry)) is not None:
                    parse_address(address, f"[skip] {entry}")
        if (streams := config.file.etsi004) is not None:
            for entry in ("listen", "peer_listen"):
                parse_address(getattr(streams, entry), f"[etsi004] {entry}")
            dials = config.streams_dials()
            for link in (view for view in config.links if view.link_name in dials):
                pairs = [pair for pair in link.entries if not pair.is_group]
                sizes = (link.registration.sizes_of(pair)[0] for pair in pairs)
                streams.check(min(sizes, default=link.registration.key_size_bits))
        if config.file.etsi020 is not None:
            config.file.etsi020.declared(config.file.kme.id)
            parse_address(config.file.etsi020.listen, "[etsi020] listen")
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
