from __future__ import annotations

import cascade_pair as pair
import numpy as np
import postprocessing_oracles as oracle
import pytest

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, RemoteProtocolError, VerificationFailed
from heliograph.postprocessing.verification import accept_verified, collision_bound, verification_tag, verify
from heliograph.types import Disclosed, IntensityCounts, ReconciledBlock

RNG = pair.generator(5)
SEED = RNG.bytes(32)


def block(bits):
    counts = IntensityCounts((len(bits),), (0,))
    return ReconciledBlock(bits, counts, counts, len(bits), 0, 0, 0, Disclosed(7, 8))


def random_bits(length):
    return BitString.from_array(RNG.integers(0, 2, length, dtype=np.uint8))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 63, 64, 65, 127, 128, 1000])
def test_the_tag_is_poly1305_over_length_and_bits(length):
    bits = random_bits(length)
    assert verification_tag(bits, SEED) == oracle.poly1305(SEED, length.to_bytes(8, "little") + bits.to_bytes())


def test_rfc_8439_vector_holds_for_the_oracle():
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    tag = oracle.poly1305(key, b"Cryptographic Forum Research Group")
    assert tag.hex() == "a8061dc1305136c6c22b8baf0c0127a9"


def test_equal_bits_are_verified_and_128_bits_are_charged_on_both_sides():
    bits = random_bits(999)
    at_receiver = verify(block(bits), SEED, verification_tag(bits, SEED))
    assert at_receiver.bits == bits
    assert at_receiver.disclosed == Disclosed(7, 8, 128)
    assert accept_verified(block(bits)).disclosed == at_receiver.disclosed


def test_each_single_remaining_error_is_found():
    bits = random_bits(203)
    tag = verification_tag(bits, SEED)
    for position in range(203):
        wrong = bits.to_array()
        wrong[position] ^= 1
        with pytest.raises(VerificationFailed):
            verify(block(BitString.from_array(wrong)), SEED, tag)


def test_each_altered_tag_bit_is_found():
    bits = random_bits(50)
    tag = int.from_bytes(verification_tag(bits, SEED))
    for position in range(128):
        with pytest.raises(VerificationFailed):
            verify(block(bits), SEED, (tag ^ 1 << position).to_bytes(16))


def test_a_zero_appended_is_another_string():
    bits = BitString(b"\xa0", 4)
    with pytest.raises(VerificationFailed):
        verify(block(BitString(b"\xa0", 5)), SEED, verification_tag(bits, SEED))


def test_a_seed_or_tag_of_another_size_is_refused():
    bits = random_bits(9)
    tag = verification_tag(bits, SEED)
    with pytest.raises(LocalProtocolError):
        verification_tag(bits, SEED[:31])
    for seed, other in ((SEED[:31], tag), (SEED, tag[:15]), (SEED, b"")):
        with pytest.raises(RemoteProtocolError):
            verify(block(bits), seed, other)


def test_the_collision_bound_counts_the_length_field():
    assert collision_bound(64) == 8 / 2**106  # 16 bytes: one block
    assert collision_bound(65) == 16 / 2**106
    assert collision_bound(10**6) == 8 * 7813 / 2**106 < 1e-15
