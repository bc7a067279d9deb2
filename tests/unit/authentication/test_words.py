"""What two people compare by voice: what one reads out, the other can type, and a slip of the tongue is named."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.authentication.anchors.words import grouped, parse_value, words
from heliograph.errors import ConfigurationError

VALUES = st.binary(min_size=16, max_size=16)
# The published vectors of BIP 39 (trezor/python-mnemonic, vectors.json).
PUBLISHED = {
    "00" * 16: "abandon " * 11 + "about",
    "7f" * 16: "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "80" * 16: "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
    "ff" * 16: "zoo " * 11 + "wrong",
    "9e885d952ad362caeb4efe34a8e91bd2": "ozone drill grab fiber curtain grace pudding thank cruise elder eight picnic",
}


@pytest.mark.parametrize("value", PUBLISHED)
def test_the_words_are_those_of_bip_39(value):
    assert words(bytes.fromhex(value)) == PUBLISHED[value]
    assert parse_value(PUBLISHED[value]) == bytes.fromhex(value)


@given(VALUES, st.sampled_from([" ", "-", "  ", ", ", "\n", " - "]), st.sampled_from([str.lower, str.upper, str.title]))
def test_what_is_read_out_can_be_typed_in_any_case_and_spacing(value, between, case):
    assert parse_value(case(between.join(words(value).split()))) == value
    assert parse_value(case(between.join(grouped(value).split()))) == value
    assert parse_value(case(value.hex())) == value


@given(VALUES, VALUES)
def test_two_values_never_look_the_same(one, other):
    if one != other:
        assert words(one) != words(other)
        assert grouped(one) != grouped(other)


def test_a_word_that_is_none_is_named_with_its_place_and_what_it_may_be():
    said = words(bytes(16)).replace("about", "abuot")
    with pytest.raises(ConfigurationError, match=r"word 12, 'abuot', is not in the list.*about"):
        parse_value(said)


def test_most_misheard_words_break_the_checksum():
    """Four bits: of the 2047 other words in one place, 15 of 16 are noticed at once, the rest when compared."""
    value = hashlib.sha256(b"a value").digest()[:16]
    right = words(value).split()
    noticed = 0
    for other in words(bytes(range(16))).split() + words(bytes(range(100, 116))).split():
        try:
            assert parse_value(" ".join([*right[:5], other, *right[6:]])) != value
        except ConfigurationError as why:
            assert "checksum" in str(why)  # noqa: PT017  - either outcome is right, a wrong value never
            noticed += 1
    assert noticed >= 18


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "0 words"),
        ("zoo", "1 words"),
        (" ".join(["zoo"] * 13), "13 words"),
        ("ab" * 15, "30 hexadecimal digits"),
        ("ab" * 17, "34 hexadecimal digits"),
        ("a1 " * 3, "6 hexadecimal digits"),
        ("\u0661" * 32, "not in the list"),
        (" ".join(["zoo"] * 12), "checksum"),
    ],
)
def test_what_is_no_value_is_refused_with_the_reason(typed, says):
    with pytest.raises(ConfigurationError, match=says):
        parse_value(typed)


@pytest.mark.parametrize("size", [0, 15, 17, 20, 32])
def test_only_128_bits_are_shown(size):
    for show in (words, grouped):
        with pytest.raises(ConfigurationError, match="16 bytes"):
            show(bytes(size))
