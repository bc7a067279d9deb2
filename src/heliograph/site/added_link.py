"""Lays out a further link in a site's directory, and writes it into SITE.toml: the whole of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec

from heliograph.authentication.bootstrap import has_signature
from heliograph.authentication.registration import anchor_kinds
from heliograph.errors import ConfigurationError
from heliograph.protocol.registration import LinkRegistration
from heliograph.site.config import SiteConfig, read_site
from heliograph.site.files import replace_file
from heliograph.site.setup import IDENTITIES, toml_table

__all__ = ["LinkSetup", "add_link"]


@dataclass(frozen=True, slots=True)
class LinkSetup:
    """What an operator decides about a further link. ``peer_kme_id``: "kme-" and the peer's name if None."""

    registration: LinkRegistration
    module: str | None
    module_settings: Mapping[str, object]
    dial: str | None = None
    listen: str | None = None
    peer_kme_id: str | None = None


def add_link(site: SiteConfig, setup: LinkSetup) -> SiteConfig:
    """Write it and return the site as seen from it. A running site takes it up at its next start.

    Everything is in a directory of its own below ``links``; what trust starts from is brought there by a person.
    Raises ConfigurationError for what the site cannot have beside its other links, and then nothing was written.
    """
    registration = setup.registration
    ends = {registration.transmitter_site: "transmitter", registration.receiver_site: "receiver"}
    role = ends.pop(site.file.name, None)
    if role is None:
        raise ConfigurationError(
            f"link {registration.link!r} is between {' and '.join(map(repr, ends))}: this site is {site.file.name!r}; "
            "name the SITE.toml of one of them, or have the peer make its link.json for this site (`site init --peer`)"
        )
    if registration in [view.registration for view in site.links]:
        raise ConfigurationError(f"{site.toml}: link {registration.link!r} is there already; nothing is to be added")
    home = next(f"links/{number}" for number in count(2) if not site.path(f"links/{number}").exists())
    entry: dict[str, object | None] = {
        "registration": f"{home}/link.json",
        "trust": f"{home}/trust",
        "book": f"{home}/psk.book" if "psk" in anchor_kinds(registration.bootstrap) else None,
        "role": role,
        "dial": setup.dial,
        "listen": setup.listen,
        "peer_id": setup.peer_kme_id or f"kme-{next(iter(ends))}",
        "store": f"{home}/store/site.db",
        "anchor": f"{home}/anchor",
        "module": {"name": setup.module or f"simulated-{role}", "settings": setup.module_settings},
    }
    for kind in anchor_kinds(registration.bootstrap):
        if kind in IDENTITIES:
            entry[kind] = {what: f"{home}/{path}" for what, path in IDENTITIES[kind].items()}
    return _write(site, home, registration, "\n[[further_links]]\n" + toml_table(entry))


def _write(site: SiteConfig, home: str, registration: LinkRegistration, section: str) -> SiteConfig:
    directory, before = site.path(home), site.toml.read_bytes()
    draft = site.toml.with_name(f".{site.toml.name}.draft")
    try:
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}; move away what stands there") from None
    written = False
    try:
        replace_file(directory / "link.json", msgspec.json.format(msgspec.json.encode(registration)) + b"\n")
        if has_signature(registration.bootstrap):
            (directory / "identity").mkdir(mode=0o700)
        # Checked as it will be read, before it takes the place of what runs.
        draft.write_bytes(before + section.encode())
        try:
            read_site(draft)
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace(str(draft), str(site.toml))) from None
        draft.chmod(site.toml.stat().st_mode & 0o777)
        draft.replace(site.toml)
        written = True
    except OSError as error:
        raise ConfigurationError(f"{site.toml}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
        if not written:
            _remove(directory)
    return read_site(site.toml).of_link(registration.link)


def _remove(directory: Path) -> None:
    (directory / "link.json").unlink(missing_ok=True)
    for empty in (directory / "identity", directory):
        if empty.exists():
            empty.rmdir()
