"""Blocks are cut into keys of several sizes by one rule: each bit once, both sites alike, and nobody is left out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.bits import BitString
from heliograph.errors import ConfigurationError
from heliograph.protocol.cutting import cut_block, key_counts, link_keys_bits
from heliograph.protocol.registration import SaePair
from heliograph.testing.links import quick_registration
from heliograph.testing.randomness import SeededRandom

PLAIN = quick_registration()
SIZES = st.lists(st.integers(8, 80).map(lambda n: 8 * n), unique=True, max_size=3).map(tuple)
OWN = st.lists(SIZES, min_size=0, max_size=3)


def link(own, peer):
    return replace(
        PLAIN,
        transmitter_pairs=tuple(SaePair("sae-a", f"sae-b{n}", key_sizes=sizes) for n, sizes in enumerate(own)),
        receiver_pairs=tuple(SaePair(f"sae-b{n}", "sae-a", key_sizes=sizes) for n, sizes in enumerate(peer))
        or (SaePair("sae-b0", "sae-a"),),
    )


def secret_of(length):
    return BitString(SeededRandom(7, "cut").draw(length // 8), length)


@given(OWN, OWN, st.integers(0, 40), st.integers(0, 3), st.integers(0, 900))
def test_no_bit_is_in_two_keys_and_less_than_one_key_is_thrown_away(own, peer, block, refills, spare_bytes):
    registration = link(own, peer)
    length = link_keys_bits(block) + refills * PAD_SET_BITS + 8 * spare_bytes
    secret = secret_of(length)
    cut = cut_block(block, secret, refills, registration)
    assert (len(cut.transmitter_keys), len(cut.receiver_keys)) == key_counts(block, length, refills, registration)
    # Put together in the order of their turns, the keys are the block itself: nothing twice, nothing left out between.
    start = link_keys_bits(block) + refills * PAD_SET_BITS
    if registration.transmitter_pairs:
        turns = [k for two in zip(cut.transmitter_keys, cut.receiver_keys, strict=False) for k in two]
        turns += cut.transmitter_keys[len(cut.receiver_keys) :]
        joined = b"".join(key.material for key in turns)
        assert joined == secret.to_bytes()[start // 8 :][: len(joined)]
        largest = max(
            size
            for pair in registration.transmitter_pairs + registration.receiver_pairs
            for size in registration.sizes_of(pair)
        )
        assert length - start - 8 * len(joined) < largest
    for key in (*cut.transmitter_keys, *cut.receiver_keys):
        assert 8 * len(key.material) in registration.sizes_of(key.pair)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 40), st.integers(0, 3), st.integers(0, 20_000))
def test_a_link_with_one_size_is_cut_as_before_there_were_several(own, peer, block, refills, spare):
    """Its registration has the digest that it had, so a site of an earlier release may be at the other end."""
    registration = link([()] * own, [()] * peer)
    length = link_keys_bits(block) + refills * PAD_SET_BITS + spare
    keys = spare // 256
    assert key_counts(block, length, refills, registration) == ((keys + 1) // 2, keys // 2)
    secret = secret_of(length + -length % 8)[:length]
    cut = cut_block(block, secret, refills, registration)
    start = length - spare
    for side, found, pairs in (
        (0, cut.transmitter_keys, registration.transmitter_pairs),
        (1, cut.receiver_keys, registration.receiver_pairs),
    ):
        for turn, key in enumerate(found):
            at = start + (side + 2 * turn) * 256
            assert key.material == secret[at : at + 256].to_bytes()
            assert key.pair == pairs[(block + turn) % len(pairs)]


def test_every_pool_gets_the_same_number_of_keys_also_from_blocks_with_room_for_one():
    registration = link([(512, 128, 1048)], [(64,)])
    got = dict.fromkeys((512, 128, 1048), 0)
    for block in range(30):
        room = link_keys_bits(block) + PAD_SET_BITS + registration.key_for_each_site_bits
        (*_, last) = cut_block(block, secret_of(room), 1, registration).transmitter_keys[:1]
        got[8 * len(last.material)] += 1
    assert set(got.values()) == {10}


@pytest.mark.parametrize("sizes", [(100,), (56,), (4104,), (256, 256), tuple(range(64, 64 + 9 * 8, 8)), (-8,)])
def test_sizes_that_cannot_be_are_not_registered(sizes):
    with pytest.raises(ConfigurationError, match="key_sizes of SAEs") as refusal:
        link([sizes], [])
    assert "\n" not in str(refusal.value)


def test_a_block_that_could_not_give_each_site_a_key_is_not_registered():
    length = PLAIN.parameters[0].secret_key_length
    small = replace(PLAIN.parameters[0], secret_key_length=7_000)
    replace(PLAIN, parameters=(small,))
    assert length > 7_000
    wide = SaePair("sae-a", "sae-b", key_sizes=(256, 4096))
    with pytest.raises(ConfigurationError, match="plan larger blocks"):
        replace(PLAIN, parameters=(small,), transmitter_pairs=(wide,))


def test_an_entry_without_sizes_is_written_without_them_and_sizes_change_the_digest():
    one = link([()], [()])
    digests = {link([sizes], [()]).digest() for sizes in ((), (128,), (256,), (128, 256), (256, 128))}
    assert one.digest() in digests
    assert len(digests) == 5  # the first size is the one for whoever names none: the order is part of it
