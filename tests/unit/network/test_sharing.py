"""Any threshold of shares gives the secret; fewer are the same whatever the secret is, shown by counting all cases."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.errors import ConfigurationError, LocalProtocolError, RemoteProtocolError
from heliograph.network import sharing
from heliograph.network.sharing import join, split
from heliograph.testing.randomness import SeededRandom

SCHEMES = [(k, n) for n in range(1, 6) for k in range(2 if n > 1 else 1, n + 1)]


@pytest.mark.parametrize(("one", "other", "product"), [(0x57, 0x83, 0xC1), (0x57, 0x13, 0xFE), (0x02, 0x80, 0x1B)])
def test_the_field_is_that_of_fips_197(one, other, product):
    """FIPS 197 4.2 and 4.2.1 multiply these by hand."""
    assert sharing._times(one, other) == sharing._times(other, one) == product


def test_every_element_has_its_inverse():
    assert all(sharing._times(x, sharing._inverse(x)) == 1 for x in range(1, 256))


@pytest.mark.parametrize(("threshold", "total"), SCHEMES)
@settings(deadline=None)
@given(secret=st.binary(min_size=1, max_size=40), seed=st.integers(0, 1000))
def test_any_threshold_of_shares_gives_the_secret(threshold, total, secret, seed):
    shares = split(secret, threshold, total, SeededRandom(seed).draw)
    for numbers in combinations(range(1, total + 1), threshold):
        assert join({n: shares[n - 1] for n in numbers}, threshold, total) == secret


@pytest.mark.parametrize(("threshold", "total"), [(2, 2), (2, 3), (3, 3), (3, 4)])
def test_fewer_shares_say_nothing_whatever_is_computed(threshold, total):
    """All choices of the random bytes at once: any threshold - 1 shares take each value equally often."""
    cases = 256 ** (threshold - 1)
    masks = [bytes(case // 256**place % 256 for case in range(cases)) for place in range(threshold - 1)]
    for numbers in combinations(range(total), threshold - 1):
        seen = []
        for secret in (0x00, 0xA7):
            drawn = iter(masks)
            shares = split(bytes([secret]) * cases, threshold, total, lambda _, drawn=drawn: next(drawn))
            seen.append(Counter(zip(*(shares[n] for n in numbers), strict=True)))
        assert seen[0] == seen[1]
        assert set(seen[0].values()) == {1}
        assert len(seen[0]) == cases


@pytest.mark.parametrize("scheme", [(0, 1), (2, 1), (1, 2), (9, 9)])
def test_a_scheme_in_which_one_path_knows_the_key_is_refused(scheme):
    with pytest.raises(ConfigurationError):
        split(b"secret", *scheme, SeededRandom(1).draw)


def test_too_few_and_unequal_shares_are_refused():
    shares = split(b"secret", 2, 3, SeededRandom(1).draw)
    with pytest.raises(RemoteProtocolError, match="1 shares"):
        join({1: shares[0]}, 2, 3)
    with pytest.raises(RemoteProtocolError, match="different lengths"):
        join({1: shares[0], 2: shares[1][1:]}, 2, 3)
    with pytest.raises(RemoteProtocolError):
        join({1: shares[0], 4: shares[1]}, 2, 3)


def test_a_random_source_that_gives_too_little_is_refused():
    with pytest.raises(LocalProtocolError):
        split(b"secret", 2, 2, lambda _: b"")
