"""A pair of SAEs whose sites share no link, and the paths between them: what both ends decide, and what a letter meets.

No message lowers anything here: threshold, number of paths and layer stand in the file of each end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heliograph.errors import ConfigurationError, RemoteProtocolError
from heliograph.network.letters import LAYERS, Letter
from heliograph.network.sharing import check_scheme
from heliograph.network.topology import Path, Topology, check_disjoint

__all__ = ["Route", "check_letter"]


@dataclass(frozen=True, slots=True)
class Route:
    """``local_sae`` at node ``here``, ``remote_sae`` at ``node``. ``paths``: candidates, from here to there; with more
    than one share no two of them have a relay in common. ``stock``: keys kept ready for the one here as master.

    Raises ConfigurationError.
    """  # noqa: D205  - one sentence of two lines

    here: str
    node: str
    local_sae: str
    remote_sae: str
    paths: tuple[Path, ...]
    shares: int = 1
    threshold: int = 1
    stock: int = 32
    layer: str = ""
    proved: bool = field(default=False)

    def __post_init__(self) -> None:
        pair = f"pair {self.local_sae} - {self.remote_sae}"
        check_scheme(self.threshold, self.shares)
        if len(self.paths) < self.shares:
            raise ConfigurationError(
                f"{pair}: shares = {self.shares}, but there are {len(self.paths)} paths without a common relay: add "
                "links, or lower shares at both ends"
            )
        if self.layer not in LAYERS:
            raise ConfigurationError(f"{pair}: layer = {self.layer!r}: one of {', '.join(LAYERS[1:])}, or left out")
        if self.layer and not self.proved:
            raise ConfigurationError(f"{pair}: layer needs peer_key: the two ends must know each other")
        if not 1 <= self.stock <= 10_000:
            raise ConfigurationError(f"{pair}: stock = {self.stock}: between 1 and 10000 keys")
        if self.shares > 1:
            check_disjoint(self.paths)


def check_letter(letter: Letter, route: Route, topology: Topology) -> None:
    """Return if a letter is what this end, its target, would have agreed to. Raises RemoteProtocolError."""
    ends = (letter.origin, letter.target, letter.master, letter.slave)
    if ends != (route.node, route.here, route.remote_sae, route.local_sae):
        raise RemoteProtocolError("a letter for another pair of SAEs")
    if (letter.threshold, len(letter.paths), letter.layer) != (route.threshold, route.shares, route.layer):
        raise RemoteProtocolError(
            f"the other end shares keys {letter.threshold} of {len(letter.paths)} with layer {letter.layer!r}, this "
            f"one {route.threshold} of {route.shares} with {route.layer!r}: set the same at both"
        )
    try:
        for path in letter.paths:
            topology.check_path(path, letter.origin, letter.target)
        if len(letter.paths) > 1:
            check_disjoint(letter.paths)
    except ConfigurationError as error:
        raise RemoteProtocolError(f"the other end's {error}") from None
