"""The pre-filter: a frame passes once, at its place, in its direction, on its connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.authentication.prefilter import FILTER_TAG_BYTES, FrameFilter, connection_key
from heliograph.errors import LocalProtocolError

KEY = bytes(range(32))


def pair(key=KEY):
    return FrameFilter(key), FrameFilter(key)


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_frames_pass_in_order(frames):
    here, there = pair()
    assert [there.open(here.seal(frame)) for frame in frames] == frames


def test_junk_changes_nothing():
    here, there = pair()
    there.open(here.seal(b"first"))
    sealed = here.seal(b"second")
    for junk in (b"", b"x", bytes(16), sealed[:-1], sealed + b"\0", b"second" + bytes(16)):
        assert there.open(junk) is None
    for bit in range(8 * len(sealed)):
        bent = bytearray(sealed)
        bent[bit // 8] ^= 1 << bit % 8
        assert there.open(bytes(bent)) is None
    assert there.open(sealed) == b"second"


def test_a_replayed_a_skipped_and_a_swapped_frame_are_junk():
    here, there = pair()
    one, two, three = (here.seal(frame) for frame in (b"same", b"same", b"same"))
    assert there.open(two) is None
    assert there.open(one) == b"same"
    assert there.open(one) is None
    assert there.open(three) is None
    assert there.open(two) == b"same"


def test_a_frame_of_the_other_direction_or_another_connection_is_junk():
    down = FrameFilter(connection_key(KEY, b"transcript 1"))
    for other in (
        connection_key(bytes(32), b"transcript 1"),  # the other direction's epoch key
        connection_key(KEY, b"transcript 2"),
        KEY,
    ):
        assert FrameFilter(other).open(down.seal(b"frame")) is None


def test_the_tag_is_128_bits():
    assert len(FrameFilter(KEY).seal(b"")) == FILTER_TAG_BYTES == 16


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(size):
    with pytest.raises(LocalProtocolError):
        connection_key(bytes(size), b"transcript")
