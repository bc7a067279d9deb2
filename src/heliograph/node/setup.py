"""Lays out a node's directory: secrets with owner-only modes, a small authority, NODE.toml to be completed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heliograph.errors import ConfigurationError
from heliograph.network.topology import Topology
from heliograph.ports import RandomSource
from heliograph.site.config import parse_address
from heliograph.site.kek import create_kek, seal_table
from heliograph.site.seal_entry import SealEntry
from heliograph.vault.certificates import SiteCa

__all__ = ["NodeSetup", "entry", "set_up_node"]

_CERTIFICATE_DAYS = 90.0
_PLAIN = SealEntry()


@dataclass(frozen=True, slots=True)
class NodeSetup:
    """What an operator decides about a node. ``edges``: the whole network's; ``sae``: its own consumer, if any."""

    name: str
    listen: str
    kme_listen: str
    edges: Sequence[Sequence[str]]
    carries: Sequence[Sequence[str]] = ()
    sae: str | None = None

    @property
    def kme_id(self) -> str:
        """The ID of the node's own key manager."""
        return f"kme-{self.name}"


def entry(table: str, values: Mapping[str, object]) -> str:
    """Return one entry of an array of tables as TOML; members that are None are left out.

    JSON texts, numbers and lists of them are TOML too.
    """
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value is not None]
    return f"\n[[{table}]]\n" + "\n".join(lines) + "\n"


def set_up_node(
    directory: Path,
    setup: NodeSetup,
    randomness: RandomSource,
    seal: SealEntry = _PLAIN,
    secret: Callable[[], bytes] = bytes,
) -> Path:
    """Write everything but links and pairs, which name what others made. Returns the path of NODE.toml.

    Raises ConfigurationError if the directory holds something already, or cannot be written.
    """
    topology = Topology(setup.edges)
    if not topology.neighbours(setup.name):
        raise ConfigurationError(f"--name {setup.name!r}: no --edge joins this node; write the name as in its edges")
    for what, address in (("--listen", setup.listen), ("--kme-listen", setup.kme_listen)):
        parse_address(address, what)
    target = directory / "NODE.toml"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()) or directory.stat().st_mode & 0o077:
            raise ConfigurationError(f"{directory}: not empty, or open to others; name a new directory")
        create_kek(directory / "kek", seal, randomness, secret)
        (directory / "pki").mkdir(mode=0o700)
        authority = SiteCa.create(f"{setup.name} authority", days=_CERTIFICATE_DAYS)
        authority.write(directory / "pki")
        host = setup.kme_listen.rpartition(":")[0]
        authority.issue_kme(setup.kme_id, [host], days=_CERTIFICATE_DAYS).write(directory / "pki", "kme")
        if setup.sae is not None:
            authority.issue_sae(setup.sae, days=_CERTIFICATE_DAYS).write(directory / "pki", "sae")
        target.write_text(_node_toml(setup, seal), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}; name a directory this user can write") from None
    return target


def _node_toml(setup: NodeSetup, seal: SealEntry) -> str:
    top = {
        "name": setup.name,
        "store": "store/node.db",
        "kek": "kek",
        "anchor": "anchor",
        "status": "status.sock",
        "listen": setup.listen,
        "edges": [list(edge) for edge in setup.edges],
        "carries": [list(ends) for ends in setup.carries],
    }
    kme = {
        "id": setup.kme_id,
        "listen": setup.kme_listen,
        "certificate": "pki/kme.pem",
        "key": "pki/kme.key",
        "ca": "pki/ca.pem",
    }
    text = _table(top) + "\n[kme]\n" + _table(kme)
    sealed = seal_table(seal)
    return text + "\n[seal]\n" + _table(sealed) if sealed else text


def _table(entries: Mapping[str, object]) -> str:
    return "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in entries.items())
