"""Which settings of NODE.toml a running node takes over; every other one waits for a restart (ADR 0052)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from heliograph.node.config import NodeConfig, read_node
from heliograph.site.reload import Reloads, Rules, Setting

__all__ = ["node_changes", "node_reloads"]

_LIVE: Final = {"log_level", "carries"}
_LIVE_KME: Final = {"certificate", "key", "ca", "max_key_per_request"}
_LIVE_LINK: Final = {"certificate", "key", "ca", "dial"}
# What a pair's keys rest on, such as paths, threshold and layer, both ends decided together.
_LIVE_PAIR: Final = {"stock"}


def node_changes(old: NodeConfig, new: NodeConfig) -> list[Setting]:
    """Return every setting that differs, by the name under which a person finds it."""
    before, after = (msgspec.to_builtins(config.file) for config in (old, new))
    plain = {name: value for name, value in before.items() if name not in {"kme", "links", "pairs"}}
    found = list(_differ("", plain, after, _LIVE))
    found += _differ("[kme] ", before["kme"], after["kme"], _LIVE_KME)
    by_peer = [{link["peer"]: link for link in of["links"]} for of in (before, after)]
    found += _entries("[[links]]", by_peer[0], by_peer[1], _LIVE_LINK, comes=False)
    by_saes = [{f"{pair['local']} - {pair['remote']}": pair for pair in of["pairs"]} for of in (before, after)]
    return found + _entries("[[pairs]]", by_saes[0], by_saes[1], _LIVE_PAIR, comes=True)


def _differ(where: str, before: Mapping[str, Any], after: Mapping[str, Any], live: set[str]) -> Iterable[Setting]:
    return (Setting(f"{where}{name}", name in live) for name in before if before[name] != after[name])


def _entries(
    table: str, before: Mapping[str, Any], after: Mapping[str, Any], live: set[str], *, comes: bool
) -> list[Setting]:
    """``comes``: whether a whole entry may come and go."""
    found = [Setting(f"{table} {name}", comes) for name in (*before, *after) if (name in before) != (name in after)]
    for name in before.keys() & after.keys():
        found += _differ(f"{table} {name}: ", before[name], after[name], live)
    return found


def _credentials(config: NodeConfig) -> list[Path]:
    """Return the files that prove who this node is, to its SAEs and to its links' key managers."""
    file = config.file
    named = [getattr(table, entry) for table in (file.kme, *file.links) for entry in ("certificate", "key", "ca")]
    named += [pair.peer_key for pair in file.pairs]
    return list(dict.fromkeys(config.path(entry) for entry in named if entry is not None))


def node_reloads(config: NodeConfig) -> Reloads[NodeConfig]:
    """Return what follows NODE.toml."""
    return Reloads(config, Rules(read_node, lambda of: [of.toml], _credentials, node_changes))
