"""The files of a rehearsed network: a directory and a NODE.toml for each node, and what couriers would carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heliograph.establishment.messages import PEER_KEY_BYTES
from heliograph.lab.ports import free_ports
from heliograph.node.setup import NodeSetup, entry, set_up_node
from heliograph.vault.owned_file import create_file
from heliograph.vault.randomness import SystemRandomness

__all__ = ["LinkAccess", "NetworkPlan", "lay_out"]

_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LinkAccess:
    """How one node reaches its end of a link. ``files``: certificate, key and CA."""

    url: str
    kme: str
    files: tuple[Path, Path, Path]
    assurance: str


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """``ends``: the two nodes with an SAE each, ``sae-<node>``; every other node carries between them."""

    edges: tuple[tuple[str, str], ...]
    ends: tuple[str, str]
    shares: int = 1
    threshold: int = 1
    stock: int = 8
    layer: str = ""
    proved: bool = True

    @property
    def nodes(self) -> list[str]:
        """All nodes, by name."""
        return sorted({name for edge in self.edges for name in edge})

    @classmethod
    def around(
        cls, relays: int, *, threshold: int, layer: str = "", proved: bool = True, stock: int = 8
    ) -> NetworkPlan:
        """Plan node-a and node-c with ``relays`` relays between them, one on each path."""
        middle = ["node-r"] if relays == 1 else [f"node-r{number}" for number in range(1, relays + 1)]
        edges = tuple(edge for relay in middle for edge in (("node-a", relay), (relay, "node-c")))
        return cls(edges, ("node-a", "node-c"), relays, threshold, stock, layer, proved)


def lay_out(
    directory: Path,
    plan: NetworkPlan,
    access: Mapping[tuple[str, str], LinkAccess],
    dials: Mapping[tuple[str, str], str] | None = None,
) -> dict[str, Path]:
    """Write every node; return NODE.toml by name. ``access``: by (node, neighbour), as are ``dials``: addresses by
    which the neighbour's node is reached, in place of its own. Raises ConfigurationError.
    """  # noqa: D205  - one sentence of two lines
    dials = dials or {}
    nodes = plan.nodes
    ports = free_ports(2 * len(nodes))
    listen = {name: f"{_HOST}:{ports[2 * at]}" for at, name in enumerate(nodes)}
    kme = {name: f"{_HOST}:{ports[2 * at + 1]}" for at, name in enumerate(nodes)}
    peer_key = SystemRandomness().draw(PEER_KEY_BYTES)
    written = {}
    for name in nodes:
        is_end = name in plan.ends
        carries = [] if is_end else [plan.ends]
        sae = f"sae-{name}" if is_end else None
        setup = NodeSetup(name, listen[name], kme[name], plan.edges, carries, sae)
        home = directory / name
        path = set_up_node(home, setup, SystemRandomness())
        text = "".join(
            _link(name, peer, dials.get((name, peer), listen[peer]), way)
            for (node, peer), way in access.items()
            if node == name
        )
        if is_end:
            if plan.proved:
                create_file(home / "peer.key", peer_key, "peer_key")
            (other,) = set(plan.ends) - {name}
            text += _pair(plan, name, other)
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
        written[name] = path
    return written


def _link(name: str, peer: str, dial: str, way: LinkAccess) -> str:
    certificate, key, ca = map(str, way.files)
    return entry(
        "links",
        {
            "peer": peer,
            "dial": dial,
            "sae": name,
            "peer_sae": peer,
            "url": way.url,
            "kme": way.kme,
            "certificate": certificate,
            "key": key,
            "ca": ca,
            "assurance": way.assurance,
        },
    )


def _pair(plan: NetworkPlan, name: str, other: str) -> str:
    return entry(
        "pairs",
        {
            "local": f"sae-{name}",
            "remote": f"sae-{other}",
            "node": other,
            "kme": f"kme-{other}",
            "shares": plan.shares,
            "threshold": plan.threshold,
            "stock": plan.stock,
            "peer_key": "peer.key" if plan.proved else None,
            "layer": plan.layer or None,
        },
    )
