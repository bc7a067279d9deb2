"""A key book: slots, roles and directions cut it without overlap, and a burnt or foreign one opens nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest

from heliograph.authentication.anchors.psk import (
    SLOTS,
    book_size,
    fingerprint,
    make_book,
    parse_header,
    secret_size,
    slot_range,
    slot_secrets,
)
from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS
from heliograph.authentication.pads import PAD_SET_BYTES, PadRole, split_pad_set
from heliograph.errors import ConfigurationError, LocalProtocolError
from heliograph.testing.randomness import SeededRandom

BOOK = make_book(SeededRandom(1, "book").draw(secret_size()))


def slot(number):
    start, stop = slot_range(number)
    return BOOK[start:stop]


def test_every_secret_of_a_book_is_another_piece_of_it():
    pieces = [parse_header(BOOK).resync_key]
    for number in range(SLOTS):
        secrets = slot_secrets(slot(number))
        pieces += [secrets.filter_key_to_receiver, secrets.filter_key_to_transmitter]
        assert len(secrets.pad_sets) == BOOTSTRAP_BLOCKS
        pieces += [pad.key for pads in secrets.pad_sets for pad in split_pad_set(pads).values()]
    assert len(set(pieces)) == len(pieces) == 1 + SLOTS * (2 + BOOTSTRAP_BLOCKS * len(PadRole))
    assert all(len(piece) == 32 for piece in pieces)
    assert sum(map(len, pieces)) == secret_size() - 16  # the identifier is public


def test_slots_do_not_overlap_and_end_the_book():
    ranges = [slot_range(number) for number in range(SLOTS)]
    assert all(stop == start for (_, stop), (start, _) in pairwise(ranges))
    assert ranges[-1][1] == book_size() == len(BOOK)


@pytest.mark.parametrize("number", [-1, SLOTS, SLOTS + 1])
def test_there_is_no_slot_beyond_the_last(number):
    with pytest.raises(ConfigurationError, match="make and carry a new one"):
        slot_range(number)


def test_a_burnt_slot_opens_nothing():
    with pytest.raises(ConfigurationError, match="used before"):
        slot_secrets(bytes(len(slot(0))))


@pytest.mark.parametrize("bent", [b"", BOOK[:-1], BOOK + b"\0", b"X" + BOOK[1:], bytes(book_size())])
def test_what_is_not_a_whole_book_is_refused(bent):
    with pytest.raises(ConfigurationError, match="not a Heliograph key book"):
        parse_header(bent)


@pytest.mark.parametrize("size", [0, 32, secret_size() - 1, secret_size() + 1])
def test_a_book_is_made_of_exactly_its_secret(size):
    with pytest.raises(ConfigurationError, match="fresh random bytes"):
        make_book(bytes(size))


def test_the_fingerprint_is_128_bits_and_moves_with_every_byte():
    words = fingerprint(BOOK).split()
    assert len(words) == 8
    assert all(len(word) == 4 for word in words)
    for at in (0, 20, 60, 1000, len(BOOK) - 1):
        bent = BOOK[:at] + bytes([BOOK[at] ^ 1]) + BOOK[at + 1 :]
        assert fingerprint(bent) != fingerprint(BOOK)


def test_secrets_do_not_print():
    assert parse_header(BOOK).resync_key.hex() not in repr(parse_header(BOOK))
    assert repr(slot_secrets(slot(0))) == "EpochSecrets()"


@pytest.mark.parametrize("size", [0, PAD_SET_BYTES - 1, PAD_SET_BYTES + 1])
def test_a_pad_set_of_another_size_is_refused(size):
    with pytest.raises(LocalProtocolError):
        split_pad_set(bytes(size))
