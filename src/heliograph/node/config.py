"""NODE.toml: read once at the start, checked whole, wrong in one line.

name = "node-a"                  # as in every node's edges
store = "store/node.db"          # paths are relative to this file
kek = "kek"                      # key-encryption key, mode 0600; [seal], optional: site/seal_entry.py
log_level = "info"               # optional, as --log-level
anchor = "anchor"                # excluded from backup, outside the store
status = "status.sock"
listen = "192.0.2.1:7100"        # where neighbours' nodes send to
edges = [["node-a", "node-r"], ["node-r", "node-c"]]    # every link of the network, the same at all nodes
carries = []                     # ends between which this node hands shares on: [["node-a", "node-c"]]

[kme]                            # the node's own key manager, for its SAEs
id = "kme-node-a"
listen = "127.0.0.1:8443"
certificate = "pki/kme.pem"
key = "pki/kme.key"
ca = "pki/ca.pem"

[[links]]                        # one for each neighbour
peer = "node-r"
dial = "192.0.2.2:7100"          # its listen
sae = "node-a"                   # this node as an SAE of the link's key manager, and the other one
peer_sae = "node-r"
url = "https://127.0.0.1:8444"   # the key manager of this end of the link; or socket = "/run/heliograph/kme.sock"
kme = "kme-a"                    # the KME ID of its certificate; a vendor's may have none
certificate = "../site-a/pki/sae.pem"
key = "../site-a/pki/sae.key"
ca = "../site-a/pki/ca.pem"
assurance = "information-theoretic"   # demanded of its keys; "vendor's claim" for a device that is not measured here

[[pairs]]                        # optional: a relay has none
local = "sae-a"                  # an SAE of this node
remote = "sae-c"                 # one of the node at the other end
node = "node-c"
kme = "kme-node-c"
shares = 1                       # paths at once, without a common relay
threshold = 1                    # of them that give the key
stock = 32                       # keys kept ready for the local SAE as master
peer_key = "peer.key"            # optional: a secret carried to the other end; names a relay that lies
layer = "ml-kem-768"             # optional, needs peer_key
paths = [["node-a", "node-r", "node-c"]]   # optional: found in edges if left out
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path as FilePath

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.network.routes import Route
from heliograph.network.sharing import SHARES_MAX
from heliograph.network.stocks import ASSURANCES
from heliograph.network.topology import Path, Topology
from heliograph.site.config import SOCKET_PATH_BYTES_MAX, LogLevel, parse_address
from heliograph.site.seal_entry import SealEntry
from heliograph.site.toml_file import read_toml

__all__ = ["LinkEntry", "NodeConfig", "PairEntry", "read_node"]


class LinkEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A link of this node: its neighbour, and the key manager of this end."""

    peer: str
    dial: str
    sae: str
    peer_sae: str
    assurance: str
    url: str | None = None
    socket: str | None = None
    kme: str | None = None
    certificate: str | None = None
    key: str | None = None
    ca: str | None = None


class PairEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two SAEs whose nodes share no link."""

    local: str
    remote: str
    node: str
    kme: str
    shares: int = 1
    threshold: int = 1
    stock: int = 32
    peer_key: str | None = None
    layer: str = ""
    paths: tuple[tuple[str, ...], ...] = ()


class _Kme(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    listen: str
    certificate: str
    key: str
    ca: str
    max_key_per_request: int = 128


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    store: str
    kek: str
    anchor: str
    status: str
    listen: str
    edges: list[list[str]]
    kme: _Kme
    seal: SealEntry = SealEntry()
    log_level: LogLevel | None = None
    links: list[LinkEntry] = []
    carries: list[list[str]] = []
    pairs: list[PairEntry] = []


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """A node's configuration, checked."""

    toml: FilePath
    directory: FilePath
    file: _File
    topology: Topology
    routes: tuple[Route, ...]

    def path(self, entry: str) -> FilePath:
        """Return the absolute path of an entry."""
        return (self.directory / entry).absolute()

    @property
    def carries(self) -> frozenset[frozenset[str]]:
        """The pairs of end nodes whose shares this node hands on."""
        return frozenset(frozenset(ends) for ends in self.file.carries)


def read_node(path: FilePath) -> NodeConfig:
    """Read NODE.toml. Raises ConfigurationError: file, entry, remedy."""
    document = read_toml(path, "NODE.toml", "node", "heliograph network init")
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}; correct that entry") from None
    try:
        topology = Topology(file.edges)
        _check(file, topology)
        routes = tuple(_route(file, topology, entry) for entry in file.pairs)
        config = NodeConfig(path, path.parent.absolute(), file, topology, routes)
        _check_paths(config)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return config


def _check(file: _File, topology: Topology) -> None:
    parse_address(file.listen, "listen")
    parse_address(file.kme.listen, "[kme] listen")
    file.seal.check()
    if not 1 <= file.kme.max_key_per_request <= 1024:
        raise ConfigurationError(f"[kme] max_key_per_request = {file.kme.max_key_per_request}: between 1 and 1024")
    peers = [link.peer for link in file.links]
    if len(set(peers)) != len(peers):
        raise ConfigurationError("[[links]]: two links to one peer; keep one")
    saes = [(link.sae, link.peer_sae) for link in file.links]
    if len(set(saes)) != len(saes):
        raise ConfigurationError("[[links]]: two links with the same sae and peer_sae: a message would fit both")
    if lacking := topology.neighbours(file.name) ^ set(peers):
        raise ConfigurationError(
            f"edges and [[links]] do not say the same of {file.name} and {min(lacking)}: a link stands in both"
        )
    for link in file.links:
        _check_link(link)
    for ends in file.carries:
        if len(set(ends)) != 2 or file.name in ends:
            raise ConfigurationError(f"carries: {ends}: write two end nodes, none of them this one")
    pairs = [(pair.local, pair.remote) for pair in file.pairs]
    if len(set(pairs)) != len(pairs):
        raise ConfigurationError("[[pairs]]: a pair of SAEs comes twice; keep one")


def _check_link(link: LinkEntry) -> None:
    where = f"[[links]] {link.peer}"
    parse_address(link.dial, f"{where}: dial")
    if link.assurance not in ASSURANCES:
        raise ConfigurationError(f"{where}: assurance = {link.assurance!r}: one of {'; '.join(ASSURANCES)}")
    if (link.url is None) == (link.socket is None):
        raise ConfigurationError(f"{where}: give one of url and socket")
    files = (link.certificate, link.key, link.ca)
    if link.socket is not None and (any(files) or link.kme is not None):
        raise ConfigurationError(f"{where}: socket takes no certificate, key, ca and kme: the system says who asks")
    if link.url is not None and not all(files):
        raise ConfigurationError(f"{where}: url needs certificate, key and ca")
    if link.sae == link.peer_sae or not link.sae.strip() or not link.peer_sae.strip():
        raise ConfigurationError(f"{where}: sae and peer_sae: two different SAE IDs, neither blank")


def _route(file: _File, topology: Topology, entry: PairEntry) -> Route:
    if entry.node == file.name or entry.kme == file.kme.id:
        raise ConfigurationError(f"[[pairs]] {entry.local} - {entry.remote}: node and kme are those of the other end")
    paths: tuple[Path, ...] = entry.paths or topology.disjoint_paths(file.name, entry.node, SHARES_MAX)
    for path in paths:
        topology.check_path(path, file.name, entry.node)
    return Route(
        file.name,
        entry.node,
        entry.local,
        entry.remote,
        paths,
        entry.shares,
        entry.threshold,
        entry.stock,
        entry.layer,
        proved=entry.peer_key is not None,
    )


def _check_paths(config: NodeConfig) -> None:
    file = config.file
    named = {"store": file.store, "kek": file.kek, "anchor": file.anchor, "status": file.status}
    for entry, value in named.items():
        if not value or "\0" in value or config.path(value) == config.directory:
            raise ConfigurationError(f"{entry} = {value!r}: name a file")
    if len({config.path(value) for value in named.values()}) != len(named):
        raise ConfigurationError(f"{', '.join(named)} must be different files")
    if config.path(file.anchor).parent == config.path(file.store).parent:
        raise ConfigurationError(f"anchor = {file.anchor!r}: keep it outside the store's directory and its backup")
    if len(os.fsencode(config.path(file.status))) > SOCKET_PATH_BYTES_MAX:
        raise ConfigurationError(f"status = {file.status!r}: the path is too long for a Unix socket")
