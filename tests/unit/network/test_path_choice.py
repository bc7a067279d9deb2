"""Paths are taken by the key they have; costs and assurances are those of every hop."""

import pytest

from heliograph.errors import InsufficientKeys
from heliograph.network.letters import Hop
from heliograph.network.stocks import VENDOR, PathBook, cost_per_bit, weakest

PATHS = [("a", "r1", "c"), ("a", "r2", "c"), ("a", "r3", "c")]
FULL = {"r1": 100, "r2": 100, "r3": 100}


def hops(*stocks, assurance="information-theoretic"):
    return [Hop(f"link {n}", 256, stock, assurance) for n, stock in enumerate(stocks)]


def test_the_path_with_the_most_key_at_its_scarcest_hop_is_taken():
    book = PathBook()
    for path, far in zip(PATHS, (5, 70, 40), strict=True):
        book.succeeded(path, hops(100, far))
    assert book.choose(PATHS, 1, FULL, 0.0) == (PATHS[1],)
    assert book.choose(PATHS, 2, FULL, 0.0) == (PATHS[1], PATHS[2])
    assert book.choose(PATHS, 1, FULL | {"r2": 3}, 0.0) == (PATHS[2],)


def test_a_path_that_was_never_tried_is_tried():
    book = PathBook()
    book.succeeded(PATHS[0], hops(100, 70))
    assert book.choose(PATHS, 1, FULL, 0.0) == (PATHS[1],)


def test_a_path_that_failed_is_left_alone_longer_each_time():
    book = PathBook()
    for times, wait in ((1, 1.0), (2, 2.0), (3, 4.0)):
        book.failed(PATHS[0], "cut", 0.0)
        assert PATHS[0] not in book.choose(PATHS, 2, FULL, wait - 0.01)
        with pytest.raises(InsufficientKeys, match="2 of 3 paths"):
            book.choose(PATHS, 3, FULL, wait - 0.01)
        assert PATHS[0] in book.choose(PATHS, 3, FULL, wait)
        assert f"failed {times} times: cut" in book.report().values()
    book.succeeded(PATHS[0], hops(100, 100))
    assert PATHS[0] in book.choose(PATHS, 3, FULL, 0.0)


def test_keys_are_as_good_as_the_weakest_hop():
    it = hops(1, 1)
    assert weakest(it) == "information-theoretic"
    assert weakest([*it, *hops(1, assurance="computational")]) == "computational"
    assert weakest([*it, *hops(1, assurance=VENDOR)]) == VENDOR
    assert weakest([*it, *hops(1, assurance="beyond doubt")]) == VENDOR  # what a relay made up counts for nothing
    assert weakest([]) == VENDOR


def test_the_cost_is_in_bits_of_each_link_for_a_bit_of_key():
    assert cost_per_bit({"b": 512, "a": 256}, 256) == {"a": 1.0, "b": 2.0}
    assert cost_per_bit({"a": 256}, 0) == {}
