"""Paths without a common relay: as many as there can be, by comparison with every choice on small graphs."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.errors import ConfigurationError
from heliograph.network.topology import Topology, check_disjoint

NODES = "abcdef"
EDGES = list(combinations(NODES, 2))


def _simple_paths(edges, path, target):
    if path[-1] == target:
        yield path
        return
    for edge in edges:
        if path[-1] in edge:
            (other,) = set(edge) - {path[-1]}
            if other not in path:
                yield from _simple_paths(edges, (*path, other), target)


def _most_disjoint(paths):
    inner = [frozenset(path[1:-1]) for path in paths]

    def best(at, used, *, direct):
        if at == len(inner):
            return 0
        skip = best(at + 1, used, direct=direct)
        if inner[at] & used or (not inner[at] and direct):
            return skip
        return max(skip, 1 + best(at + 1, used | inner[at], direct=direct or not inner[at]))

    return best(0, frozenset(), direct=False)


@settings(deadline=None)
@given(st.sets(st.sampled_from(EDGES), min_size=1))
def test_there_are_as_many_disjoint_paths_as_can_be(edges):
    topology = Topology(sorted(edges))
    found = topology.disjoint_paths("a", "f", 8)
    check_disjoint(found)
    for path in found:
        topology.check_path(path, "a", "f")
    assert len(found) == _most_disjoint(list(_simple_paths(edges, ("a",), "f")))


def test_a_greedy_choice_would_find_one_path_here():
    """The shortest path a-b-c-f uses both relays that the two disjoint ones need."""
    edges = [("a", "b"), ("b", "c"), ("c", "f"), ("a", "d"), ("d", "c"), ("b", "e"), ("e", "f")]
    assert set(Topology(edges).disjoint_paths("a", "f", 8)) == {("a", "b", "e", "f"), ("a", "d", "c", "f")}


def test_a_common_relay_is_named():
    with pytest.raises(ConfigurationError, match="share r: it alone would see two shares"):
        check_disjoint([("a", "r", "f"), ("a", "s", "r", "f")])


@pytest.mark.parametrize("path", [("a", "f"), ("a",), ("a", "b", "a"), ("b", "c"), ("a", "b", "c", "b", "f")])
def test_a_path_over_no_link_or_in_a_circle_is_refused(path):
    with pytest.raises(ConfigurationError):
        Topology([("a", "b"), ("b", "c"), ("b", "f")]).check_path(path, "a", "f")


@pytest.mark.parametrize("edges", [[("a", "a")], [("a",)], [("a", "b"), ("b", "a")], [("a", " ")]])
def test_links_that_are_none_are_refused(edges):
    with pytest.raises(ConfigurationError):
        Topology(edges)
