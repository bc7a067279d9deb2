"""Which nodes have a link, and paths over them that share no relay."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from heliograph.errors import ConfigurationError

__all__ = ["HOPS_MAX", "Path", "Topology", "check_disjoint", "describe", "link_name"]

Path = tuple[str, ...]
HOPS_MAX: Final = 8  # our choice: each hop costs key, and all of a path answer within one message's patience


def describe(path: Sequence[str]) -> str:
    """Return a path as people read it."""
    return " - ".join(path)


def link_name(one: str, other: str) -> str:
    """Return how reports call the link of two nodes."""
    return " - ".join(sorted((one, other)))


class Topology:
    """``edges``: pairs of nodes with a link. Raises ConfigurationError."""

    def __init__(self, edges: Iterable[Sequence[str]]) -> None:
        self._neighbours: dict[str, set[str]] = {}
        for edge in edges:
            if len(edge) != 2 or edge[0] == edge[1] or not all(name.strip() for name in edge):
                raise ConfigurationError(f"edges: {list(edge)}: write the two different nodes that a link joins")
            one, other = edge
            if other in self._neighbours.get(one, ()):
                raise ConfigurationError(f"edges: {list(edge)} comes twice; keep one")
            self._neighbours.setdefault(one, set()).add(other)
            self._neighbours.setdefault(other, set()).add(one)

    def neighbours(self, node: str) -> frozenset[str]:
        """Return the nodes that have a link with ``node``."""
        return frozenset(self._neighbours.get(node, ()))

    def check_path(self, path: Path, source: str, target: str) -> None:
        """Return if ``path`` leads from ``source`` to ``target`` over links. Raises ConfigurationError."""
        if len(path) < 2 or (path[0], path[-1]) != (source, target) or len(set(path)) != len(path):
            raise ConfigurationError(
                f"path {describe(path)}: must lead from {source} to {target} and see each node once"
            )
        if len(path) - 1 > HOPS_MAX:
            raise ConfigurationError(f"path {describe(path)}: more than {HOPS_MAX} hops")
        for one, other in pairwise(path):
            if other not in self._neighbours.get(one, ()):
                raise ConfigurationError(f"path {describe(path)}: edges names no link of {one} and {other}")

    def disjoint_paths(self, source: str, target: str, most: int) -> tuple[Path, ...]:
        """Return up to ``most`` paths of which no two share a relay, the shortest first; as many as there can be.

        Menger's theorem by augmenting paths: each node but the ends may be passed once.
        """
        follows: dict[str, str] = {}  # a relay in use, and the node after it
        starts: set[str] = set()
        while len(starts) < most:
            found = self._augmenting(source, target, follows, starts)
            if found is None:
                break
            _apply(found, source, target, follows, starts)
        paths = []
        for first in starts:
            path = [source, first]
            while path[-1] != target:
                path.append(follows[path[-1]])
            paths.append(tuple(path))
        return tuple(sorted(paths, key=lambda path: (len(path), path)))

    def _augmenting(
        self, source: str, target: str, follows: dict[str, str], starts: set[str]
    ) -> list[tuple[str, str]] | None:
        """Search the residual graph. A state is (node, side); a relay is entered at "in" and left at "out"."""
        precedes = {after: before for before, after in follows.items() if after != target}
        precedes |= {first: source for first in starts if first != target}
        came: dict[tuple[str, str], tuple[str, str] | None] = {(source, "out"): None}
        waiting = deque([(source, "out")])
        while waiting:
            node, side = state = waiting.popleft()
            if node == target:
                back: list[tuple[str, str]] = []
                step: tuple[str, str] | None = state
                while step is not None:
                    back.append(step)
                    step = came[step]
                return back[::-1]
            used = node in precedes
            moves: list[tuple[str, str]] = []
            if side == "out":
                taken = starts if node == source else {follows.get(node)}
                moves = [(n, "in") for n in sorted(self._neighbours.get(node, ())) if n not in taken and n != source]
                if used:  # back through a node in use, to undo what came before it
                    moves.append((node, "in"))
            elif not used:
                moves = [(node, "out")]
            elif precedes[node] != source:
                moves = [(precedes[node], "out")]
            for move in moves:
                if move not in came:
                    came[move] = state
                    waiting.append(move)
        return None


def _apply(found: list[tuple[str, str]], source: str, target: str, follows: dict[str, str], starts: set[str]) -> None:
    """Add the augmenting path to the flow: edges walked backwards are taken out of it, the others put in."""
    edges = set(follows.items()) | {(source, first) for first in starts}
    for (one, side), (other, _) in pairwise(found):
        if one == other:
            continue
        if side == "out":
            edges.add((one, other))
        else:
            edges.discard((other, one))
    starts.clear()
    follows.clear()
    for one, other in edges:
        if one == source:
            starts.add(other)
        else:
            follows[one] = other
    follows.pop(target, None)


def check_disjoint(paths: Sequence[Path]) -> None:
    """Return if no two paths share a relay. Raises ConfigurationError."""
    seen: dict[str, Path] = {}
    for path in paths:
        for relay in path[1:-1] or (f"the link of {path[0]} and {path[-1]}",):
            if relay in seen:
                raise ConfigurationError(
                    f"paths {describe(seen[relay])} and {describe(path)} share {relay}: it alone would see two shares"
                )
            seen[relay] = path
