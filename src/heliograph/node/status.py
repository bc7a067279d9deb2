"""What people may see of a node: figures and names, never key material, by construction."""

from __future__ import annotations

from msgspec import Struct

from heliograph.status import ConfigurationStatus

__all__ = ["LinkUse", "NodeStatus", "PairStatus"]


class LinkUse(Struct, frozen=True):
    """One link. ``stock``: keys that could be drawn now, -1 if its key manager does not answer; ``drawn_bits``: what
    this node drew, for its own pairs and for others.
    """  # noqa: D205  - one sentence of two lines

    link: str
    peer: str
    assurance: str
    stock: int
    drawn_bits: int


class PairStatus(Struct, frozen=True):
    """One pair of SAEs. ``ready``: keys for the local SAE as master; ``held``: keys that wait for it as slave.

    ``paid_bits``: bits of each link's key that the pair's keys cost, those of transfers that failed too, as the hops
    told; ``cost_per_bit``: the same for each bit of ``delivered_bits``, which are at both ends. ``last``: why there
    were no keys last time, empty if there were.
    """

    local_sae: str
    remote_sae: str
    node: str
    scheme: str
    layer: str
    ready: int
    held: int
    delivered_bits: int
    paid_bits: dict[str, int]
    cost_per_bit: dict[str, float]
    paths: dict[str, str]
    last: str


class NodeStatus(Struct, frozen=True):
    """One node. ``carried``: shares handed on for others; ``suspected``: paths whose relays were caught lying."""

    node: str
    process_id: int
    links: tuple[LinkUse, ...]
    pairs: tuple[PairStatus, ...]
    carried: int
    suspected: dict[str, int]
    delivered_to_masters: int
    delivered_to_slaves: int
    configuration: ConfigurationStatus = ConfigurationStatus()
