"""The tag against the RFC's vectors, one file each, and its bound against the figures of theory.md 1.9."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph import errors
from heliograph.authentication.mac import PAD_BYTES, TAG_BYTES, Pad, check_tag, forgery_bound, make_tag

FILES = sorted((Path(__file__).parent / "poly1305").glob("*.txt"))


def read(path):
    entries = dict(
        line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in path.read_text().splitlines()
    )
    assert set(entries) == {"source", "key", "message", "tag", "expect"}
    return entries


def slow_poly1305(key, message):
    """RFC 8439 2.5.1 with whole numbers: an independent oracle."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for start in range(0, len(message), 16):
        total = (total + int.from_bytes(message[start : start + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_vector(path):
    vector = read(path)
    pad = Pad(bytes.fromhex(vector["key"]))
    message, tag = bytes.fromhex(vector["message"]), bytes.fromhex(vector["tag"])
    if vector["expect"] == "success":
        assert make_tag(pad, (message,)) == tag
        check_tag(pad, (message,), tag)
    else:
        with pytest.raises(getattr(errors, vector["expect"])):
            check_tag(pad, (message,), tag)


def test_all_vectors_of_the_rfc_are_there():
    sources = {read(path)["source"] for path in FILES}
    assert {"RFC 8439 2.5.2", *(f"RFC 8439 A.3 #{n}" for n in range(1, 12))} <= sources


@given(st.binary(min_size=PAD_BYTES, max_size=PAD_BYTES), st.lists(st.binary(max_size=70), max_size=5))
def test_the_tag_is_that_of_the_slow_oracle_however_the_message_is_cut(key, parts):
    whole = b"".join(parts)
    assert make_tag(Pad(key), parts) == make_tag(Pad(key), (whole,)) == slow_poly1305(key, whole)


@pytest.mark.parametrize(
    ("length", "log2_eps"),
    [(16, -103), (2**10, -97), (2**16, -91), (2**20, -87), (2**24, -83), (2**30, -77)],
)
def test_the_forgery_bound_has_the_published_values(length, log2_eps):
    assert math.log2(forgery_bound(length)) == log2_eps


def test_the_forgery_bound_counts_every_attempt_and_every_started_block():
    assert math.log2(forgery_bound(16, attempts=2**10)) == -93  # 2^10 attempts cost 10 bits
    assert forgery_bound(17) == 2 * forgery_bound(16)
    assert forgery_bound(0) == forgery_bound(1) == forgery_bound(16)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_pad_of_another_size_is_refused(size):
    with pytest.raises(errors.LocalProtocolError):
        Pad(bytes(size))


@pytest.mark.parametrize("size", range(TAG_BYTES))
def test_a_shortened_tag_is_never_accepted(size):
    pad = Pad(bytes(range(PAD_BYTES)))
    with pytest.raises(errors.AuthenticationFailed):
        check_tag(pad, (b"message",), make_tag(pad, (b"message",))[:size])


def test_a_pad_does_not_print_its_key():
    assert "07" not in repr(Pad(b"\x07" * PAD_BYTES))
