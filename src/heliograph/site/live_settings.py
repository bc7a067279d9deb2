"""Which settings of SITE.toml a running process takes over; every other one, new ones too, waits for a restart.

What is agreed with the other site, what opens the store, what a person approved, and what a socket is bound to does
not change under way (ADR 0052).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from heliograph.site.audit import AuditLog
from heliograph.site.boundary_entry import BoundaryEntry
from heliograph.site.config import SiteConfig, read_site
from heliograph.site.reload import Reloads, Rules, Setting

__all__ = ["site_changes", "site_reloads"]

_LIVE: Final = {
    "": {"log_level"},
    "link": {"dial", "in_flight", "keys_max"},
    "further_links": {"dial", "in_flight", "keys_max", "etsi004_peer_dial"},
    "kme": {
        *("certificate", "key", "ca", "max_key_per_request", "key_ttl_s", "requests_per_s", "request_burst"),
        *("reserve", "quotas", "groups"),
    },
    "boundary": {"certificates", "networks", "users", "in_process"},
    "skip": {"local_system_id", "remote_systems", "psk"},
    "etsi004": {"applications", "promised_bps", "ttl_s_max", "peer_dial"},
    "etsi020": {"peers", "groups", "extension_pen", "synchronous", "certificate", "key", "ca"},
    "agent": {"certificate", "key"},
    "agent tunnel": {"rekey_seconds", "overlap_seconds"},
}


def site_changes(old: SiteConfig, new: SiteConfig) -> list[Setting]:
    """Return every setting that differs, by the name under which a person finds it."""
    before, after = (msgspec.to_builtins(config.file) for config in (old, new))
    found = [
        setting
        for name in after
        for setting in _compared(name, before[name], after[name])
        if before[name] != after[name]
    ]
    for one, other in zip(old.links, new.links, strict=False):  # that there are more or fewer was found already
        if one.registration != other.registration:
            where = other.file.link.registration
            found.append(Setting(f"the registration {where}, which both sites agreed on", live=False))
    return found


def _compared(name: str, before: Any, after: Any) -> Iterable[Setting]:  # noqa: ANN401  - what TOML can hold
    if name == "boundary" and before is None:
        before = msgspec.to_builtins(BoundaryEntry())  # one may come; if it goes, a half-written file opens every door
    if name == "further_links":
        return _further_links(before, after)
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        table = isinstance(before, Mapping) or isinstance(after, Mapping)
        return [Setting(f"[{name}]" if table else name, live=not table and name in _LIVE[""])]
    if name == "agent":
        tunnel = _entries("agent tunnel", before["tunnel"], after["tunnel"])
        return [*_entries(name, {**before, "tunnel": 0}, {**after, "tunnel": 0}), *tunnel]
    return _entries(name, before, after)


def _further_links(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[Setting]:
    if [link["registration"] for link in before] != [link["registration"] for link in after]:
        return [Setting("[[further_links]]", live=False)]  # one that comes, goes or moves
    pairs = zip(before, after, strict=True)
    return list(dict.fromkeys(setting for pair in pairs for setting in _entries("further_links", *pair)))


def _entries(table: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Setting]:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    live = _LIVE.get(table, set())
    return [
        Setting(f"[{table}] {name}", live=name in live and not _a_door(table, name, before, after)) for name in names
    ]


def _a_door(table: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Tell whether the change needs a port that is not open, or moves a consumer into or out of this process."""
    if (table, name) == ("boundary", "certificates"):
        return bool(before[name] == [])  # there is no port; the other way it stays open, and lets nobody in
    return table == "agent" and (before.get(name) is None) is not (after.get(name) is None)


def _credentials(config: SiteConfig) -> list[Path]:
    """Return the files that prove who a door or a consumer of this site is, and those of preshared keys."""
    file = config.file
    tables = [file.kme, file.agent, file.etsi020]
    named = [getattr(table, entry, None) for table in tables for entry in ("certificate", "key", "ca")]
    named += [] if file.skip is None else [key.file for key in file.skip.psk.values()]
    return list(dict.fromkeys(config.path(entry) for entry in named if entry is not None))


def site_reloads(config: SiteConfig, process: str = "site") -> Reloads[SiteConfig]:
    """Return what follows SITE.toml. ``process``: which of the site's processes, for the audit log."""

    def record(fresh: SiteConfig, who: str, names: Sequence[str]) -> None:
        AuditLog(fresh.audit).append("configuration reloaded", who, {"process": process, "changed": list(names)})

    def files(of: SiteConfig) -> list[Any]:
        return [of.toml, *(of.toml.parent / view.file.link.registration for view in of.links)]

    return Reloads(config, Rules(read_site, files, _credentials, site_changes, record))
