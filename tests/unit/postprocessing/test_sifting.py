from __future__ import annotations

import numpy as np
import postprocessing_oracles as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.postprocessing.sifting import (
    bits_in_test,
    pack_bases,
    pack_intensities,
    sift,
    unpack_bases,
    unpack_intensities,
)

SLOT = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(0, 2))


def marks(values):
    return np.array(list(values), dtype=np.uint8)


def columns(slots):
    return (marks(column) for column in (zip(*slots, strict=True) if slots else [[]] * 5))


@given(st.lists(SLOT, max_size=60))
def test_sifting_is_its_slot_by_slot_definition(slots):
    bases_a, bits_a, bases_b, bits_b, kinds = columns(slots)
    shown = bits_in_test(bases_b, bits_b, bases_a)
    block = sift(bases_a, bits_a, bases_b, kinds, shown, 3)
    key, key_kinds, detections, errors = oracle.sift(
        bases_a.tolist(), bits_a.tolist(), bases_b.tolist(), kinds.tolist(), shown.to_array().tolist(), 3
    )
    assert block.bits.to_array().tolist() == key
    assert block.intensities.tolist() == key_kinds
    assert (block.test.detections, block.test.errors) == (detections, errors)


@given(st.lists(SLOT, max_size=60))
def test_both_sides_get_the_same_test_counts_and_key_slots(slots):
    bases_a, bits_a, bases_b, bits_b, kinds = columns(slots)
    at_a = sift(bases_a, bits_a, bases_b, kinds, bits_in_test(bases_b, bits_b, bases_a), 3)
    at_b = sift(bases_b, bits_b, bases_a, kinds, bits_in_test(bases_a, bits_a, bases_b), 3)
    assert at_a.test == at_b.test
    assert len(at_a.bits) == len(at_b.bits)
    assert at_a.intensities.tolist() == at_b.intensities.tolist()


BASES = marks([0, 1, 0, 1, 1, 0])
PEER = marks([0, 1, 1, 1, 0, 0])
BITS = marks([1, 0, 1, 1, 0, 0])
KINDS = marks([0, 1, 1, 0, 0, 1])
SHOWN = BitString.from_array(marks([0, 0]))


@pytest.mark.parametrize(
    "change",
    [
        {"peer_bases": PEER[:-1]},
        {"peer_bases": marks([0, 1, 1, 2, 0, 0])},
        {"intensities": KINDS[:-1]},
        {"intensities": marks([0, 1, 1, 0, 0, 2])},
        {"peer_test_bits": SHOWN[:1]},
        {"peer_test_bits": BitString(b"\0", 3)},
    ],
)
def test_a_peer_report_that_does_not_fit_the_detected_slots_is_refused(change):
    whole = {"peer_bases": PEER, "intensities": KINDS, "peer_test_bits": SHOWN}
    block = sift(BASES, BITS, number_of_intensities=2, **whole)
    assert block.test.errors == (1, 0)
    with pytest.raises(RemoteProtocolError):
        sift(BASES, BITS, number_of_intensities=2, **(whole | change))


def test_our_own_missing_bits_are_our_own_fault():
    with pytest.raises(LocalProtocolError):
        sift(BASES, BITS[:-1], PEER, KINDS, SHOWN, 2)


def test_nothing_but_test_slots_is_shown():
    assert bits_in_test(BASES, BITS, PEER) == BitString.from_array(marks([0, 1]))


@given(st.integers(1, 9).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k - 1), max_size=40))))
def test_intensities_and_bases_survive_the_wire(case):
    kinds, values = case
    packed = pack_intensities(marks(values), kinds)
    assert len(packed) == len(values) * {1: 0, 2: 1, 3: 2, 4: 2}.get(kinds, 3 if kinds <= 8 else 4)
    assert unpack_intensities(packed, len(values), kinds).tolist() == values
    bases = marks(value & 1 for value in values)
    assert unpack_bases(pack_bases(bases), len(values)).tolist() == bases.tolist()


def test_a_malformed_intensity_list_is_refused():
    with pytest.raises(RemoteProtocolError):
        unpack_intensities(BitString(b"\xc0", 2), 1, 3)  # index 3 of 3
    with pytest.raises(RemoteProtocolError):
        unpack_intensities(BitString(b"\0", 3), 1, 3)
    with pytest.raises(RemoteProtocolError):
        unpack_bases(BitString(b"\0", 3), 4)
    with pytest.raises(LocalProtocolError):
        pack_intensities(marks([0]), 0)
