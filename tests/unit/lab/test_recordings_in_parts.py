"""A recording that is taken in parts: the same bits as the whole, and never more than is there."""

import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.errors import ConfigurationError
from heliograph.lab.recordings import Recording
from heliograph.postprocessing.recorded import format_bits

BITS = BitString(np.random.default_rng(1).bytes(100), 800)


@pytest.mark.parametrize(("name", "form"), [("key.bin", "packed"), ("key.npy", "npy"), ("key.txt", "text")])
def test_the_parts_are_those_of_the_whole(tmp_path, name, form):
    path = tmp_path / name
    path.write_bytes(format_bits(BITS, form))
    for in_parts in (True, False):
        recording = Recording(path, in_parts=in_parts)
        assert recording.bits == 800
        assert recording.ones() == int(BITS.to_array().sum())
        for first, length in ((0, 800), (0, 8), (80, 160), (792, 8)):
            assert recording.part(first, length) == BITS[first : first + length]


def test_a_packed_file_larger_than_what_is_held_is_taken_in_parts(tmp_path):
    path = tmp_path / "long.bin"
    with path.open("wb") as file:
        file.seek(2**27)
        file.write(b"\xff")
    recording = Recording(path, in_parts=True)
    assert recording.bits == 8 * (2**27 + 1)
    assert recording.part(8 * 2**27, 8).parity() == 0
    with pytest.raises(ConfigurationError, match="--block-bits"):
        Recording(path, in_parts=False)


def test_a_file_that_is_none_or_empty_or_becomes_shorter_is_one_line(tmp_path):
    path = tmp_path / "key.bin"
    with pytest.raises(ConfigurationError, match="No such file"):
        Recording(path, in_parts=True)
    path.touch()
    with pytest.raises(ConfigurationError, match="not a single bit"):
        Recording(path, in_parts=True)
    path.write_bytes(bytes(10))
    recording = Recording(path, in_parts=True)
    path.write_bytes(bytes(5))
    with pytest.raises(ConfigurationError, match="became shorter"):
        recording.part(40, 40)
    path.unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        recording.part(0, 8)
    path.mkdir()
    with pytest.raises(ConfigurationError, match="not a regular file"):
        Recording(path, in_parts=True)
