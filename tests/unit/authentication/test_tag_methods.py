"""What every method of data authentication promises, whichever the registration names."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.mac import PAD_BYTES, Pad, forgery_bound, make_tag
from heliograph.authentication.methods.registry import DEFAULT_METHOD, TAG_METHODS, tag_method
from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import AuthenticationFailed, ConfigurationError, LocalProtocolError

NAMES = ("wegman-carter-poly1305", "hmac-sha-256", "hmac-sha-384", "aes-gmac")
KEY = bytes(range(100, 100 + PAD_BYTES))
ADDRESS = PadAddress(1, 1, PadRole.CLOSURE)
METHODS = pytest.mark.parametrize("method", [TAG_METHODS[name] for name in NAMES], ids=lambda m: m.name)
MESSAGE = bytes(random.Random(1).randbytes(83))


def refused(method, key, covered, tag):
    with pytest.raises(AuthenticationFailed):
        method.check(key, covered, tag)


def flipped(data):
    for bit in range(8 * len(data)):
        bent = bytearray(data)
        bent[bit // 8] ^= 0x80 >> bit % 8
        yield bytes(bent)


@METHODS
def test_a_tag_is_accepted_under_its_key(method):
    for message in (b"", b"\0", MESSAGE):
        tag = method.tag(KEY, (message,))
        assert len(tag) == method.tag_bytes
        assert method.check(KEY, (message,), tag) is None


@METHODS
def test_any_flipped_bit_of_the_message_is_refused(method):
    tag = method.tag(KEY, (MESSAGE,))
    for bent in flipped(MESSAGE):
        refused(method, KEY, (bent,), tag)


@METHODS
def test_any_flipped_bit_of_the_tag_is_refused(method):
    for bent in flipped(method.tag(KEY, (MESSAGE,))):
        refused(method, KEY, (MESSAGE,), bent)


@METHODS
def test_a_shortened_or_lengthened_message_is_refused(method):
    tag = method.tag(KEY, (MESSAGE,))
    for size in range(len(MESSAGE)):
        refused(method, KEY, (MESSAGE[:size],), tag)
    for more in (b"\0", b"\x80", b"\x01", bytes(16), bytes(64)):
        refused(method, KEY, (MESSAGE + more,), tag)
        refused(method, KEY, (more + MESSAGE,), tag)
    for size in range(1, 40):  # zeros differ by their number only
        refused(method, KEY, (bytes(size - 1),), method.tag(KEY, (bytes(size),)))


@METHODS
def test_a_truncated_or_extended_tag_is_refused(method):
    tag = method.tag(KEY, (MESSAGE,))
    for size in range(len(tag)):
        refused(method, KEY, (MESSAGE,), tag[:size])
    for more in (b"\0", tag, bytes(16)):
        refused(method, KEY, (MESSAGE,), tag + more)


@METHODS
def test_the_tag_of_another_key_or_message_is_refused(method):
    for other in flipped(KEY):
        if other[:16] != KEY[:16] and method is DEFAULT_METHOD:
            continue  # Poly1305 clamps bits of r: that they do not count is the construction, see below
        refused(method, KEY, (MESSAGE,), method.tag(other, (MESSAGE,)))
    refused(method, KEY, (MESSAGE,), method.tag(KEY, (MESSAGE[::-1],)))


def test_poly1305_uses_the_106_bits_of_r_that_are_not_clamped():
    tags = [DEFAULT_METHOD.tag(other, (MESSAGE,)) for other in flipped(KEY) if other[:16] != KEY[:16]]
    assert sum(tag != DEFAULT_METHOD.tag(KEY, (MESSAGE,)) for tag in tags) == 106


@METHODS
@pytest.mark.parametrize("size", [0, 16, 24, 31, 33, 48, 64])
def test_a_key_of_another_length_is_refused(method, size):
    assert method.key_bytes == PAD_BYTES
    with pytest.raises(LocalProtocolError, match=str(size)):
        method.tag(bytes(size), (MESSAGE,))
    with pytest.raises(LocalProtocolError, match=str(size)):
        method.check(bytes(size), (MESSAGE,), bytes(method.tag_bytes))


@METHODS
@given(parts=st.lists(st.binary(max_size=70), max_size=6))
def test_the_parts_are_concatenated_exactly(method, parts):
    whole = b"".join(parts)
    tag = method.tag(KEY, (whole,))
    assert method.tag(KEY, parts) == method.tag(KEY, iter(parts)) == tag
    method.check(KEY, iter(parts), tag)


@METHODS
def test_a_repeated_or_reordered_part_is_refused(method):
    tag = method.tag(KEY, (b"first", b"second"))
    for covered in ((b"second", b"first"), (b"first", b"first", b"second"), (b"first",), ()):
        refused(method, KEY, covered, tag)


def test_no_method_accepts_the_tag_of_another():
    for maker in TAG_METHODS.values():
        for checker in TAG_METHODS.values():
            if maker is not checker:
                refused(checker, KEY, (MESSAGE,), maker.tag(KEY, (MESSAGE,)))
                refused(checker, KEY, (MESSAGE,), maker.tag(KEY, (MESSAGE,))[: checker.tag_bytes])


def test_the_registry_holds_these_methods_and_no_other():
    assert tuple(TAG_METHODS) == NAMES
    assert [tag_method(name).name for name in NAMES] == list(NAMES)
    assert DEFAULT_METHOD.name == NAMES[0]


@pytest.mark.parametrize("name", ["", "none", "sha-256", "WEGMAN-CARTER-POLY1305", "signature "])
def test_an_unknown_method_is_named_with_the_known_ones(name):
    with pytest.raises(ConfigurationError, match="write one of: wegman-carter-poly1305, hmac-sha-256"):
        tag_method(name)


@METHODS
def test_only_a_proved_bound_is_called_information_theoretic(method):
    bound = method.forgery_bound(2**20, attempts=3)
    if method.assurance == "information-theoretic":
        assert bound == forgery_bound(2**20, 3) == 3 * 2.0**-87
    else:
        assert method.assurance == "computational"
        assert bound is None


@given(st.lists(st.binary(max_size=70), max_size=5))
def test_the_default_gives_todays_bytes(parts):
    assert DEFAULT_METHOD.tag(KEY, parts) == make_tag(Pad(KEY), parts)


class OnePad:
    """A PadStore with one pad that notes what is told to it."""

    def __init__(self):
        self.bounds = []

    def burn(self, address):
        assert address == ADDRESS
        return Pad(KEY)

    def attempt(self, address):
        assert address == ADDRESS
        return Pad(KEY), 7

    def accepted(self, address, forgery_bound):
        assert address == ADDRESS
        self.bounds.append(forgery_bound)


@METHODS
def test_an_authenticator_tags_and_checks_by_its_method(method):
    store = OnePad()
    authenticator = Authenticator(store, method)
    assert authenticator.method is method
    tag = authenticator.tag(ADDRESS, (MESSAGE, b"end"))
    assert tag == method.tag(KEY, (MESSAGE, b"end"))
    with pytest.raises(AuthenticationFailed):
        authenticator.check(ADDRESS, (MESSAGE, b"END"), tag)
    assert store.bounds == []
    authenticator.check(ADDRESS, (MESSAGE, b"end"), tag)
    assert store.bounds == [method.forgery_bound(len(MESSAGE) + 3, 7) or 0.0]


def test_an_authenticator_uses_wegman_carter_unless_told_otherwise():
    assert Authenticator(OnePad()).method is DEFAULT_METHOD
