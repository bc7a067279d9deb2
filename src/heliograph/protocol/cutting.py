"""How the secret bits of a block are divided; one fixed rule, the same on both sites (security.md 2, 8).

    | the link's keys | pad set of refill 1 | pad set of refill 2 | ... | key 0 | key 1 | ... | rest, thrown away |

Only a bootstrap block gives the link its keys: they take the place of the bootstrap.

Keys with an even index belong to the transmitter's site, odd ones to the receiver's; ranges never change owner and
are cut once. Within a site's keys its pools take turns: each pair or group of SAEs, and each size of key that it has.
Which one begins goes on with the block's number, so that small blocks leave out nobody, and the pools of a site get the
same number of keys, not of bits. The first key that does not fit is the end, also where a shorter one would: what is
left of a block is less than one key, and is thrown away. Bits are counted once: refill and keys do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from heliograph.authentication.bootstrap import is_bootstrap_block
from heliograph.authentication.link_keys import LINK_KEYS_BITS
from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.bits import BitString
from heliograph.protocol.registration import LinkRegistration, SaePair

__all__ = ["CutBlock", "CutKey", "cut_block", "key_counts", "link_keys_bits", "refills_fit"]


@dataclass(frozen=True, slots=True)
class CutKey:
    """One key's bytes and the pair it is allocated to."""

    pair: SaePair
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CutBlock:
    """A divided block: the link's keys (empty but for a bootstrap block), pad sets for the pool, keys by owner."""

    link_keys: bytes = field(repr=False)
    pad_sets: tuple[bytes, ...] = field(repr=False)
    transmitter_keys: tuple[CutKey, ...]
    receiver_keys: tuple[CutKey, ...]


def link_keys_bits(block: int) -> int:
    """Return how many bits of this block are the link's own keys."""
    return LINK_KEYS_BITS if is_bootstrap_block(block) else 0


def refills_fit(block: int, length: int, refills: int) -> bool:
    """Return whether block ``block`` of ``length`` secret bits can hold ``refills`` pad sets."""
    return link_keys_bits(block) + refills * PAD_SET_BITS <= length


def key_counts(block: int, length: int, refills: int, registration: LinkRegistration) -> tuple[int, int]:
    """Return how many keys block ``block`` of ``length`` bits gives to the transmitter's and the receiver's site."""
    numbers = [0, 0]
    for side, _, _, _ in _ranges(block, length, refills, registration):
        numbers[side] += 1
    return numbers[0], numbers[1]


def cut_block(block: int, secret: BitString, refills: int, registration: LinkRegistration) -> CutBlock:
    """Divide the secret of block ``block``; the caller made sure that ``refills`` pad sets fit (``refills_fit``)."""
    first = link_keys_bits(block)
    pads, size = secret[first : first + refills * PAD_SET_BITS].to_bytes(), PAD_SET_BITS // 8
    pad_sets = tuple(pads[i * size : (i + 1) * size] for i in range(refills))
    keys: tuple[list[CutKey], list[CutKey]] = [], []
    for side, pair, start, end in _ranges(block, len(secret), refills, registration):
        keys[side].append(CutKey(pair, secret[start:end].to_bytes()))
    return CutBlock(secret[:first].to_bytes(), pad_sets, tuple(keys[0]), tuple(keys[1]))


def _ranges(
    block: int, length: int, refills: int, registration: LinkRegistration
) -> Iterator[tuple[int, SaePair, int, int]]:
    """Return each key of a block: whose it is (0: the transmitter's site), of which entry, its first bit and its end.

    A site without pairs has its turns all the same, of the link's size, and nobody gets those bits.
    """
    pools: list[list[tuple[SaePair | None, int]]] = [
        [(pair, size) for pair in pairs for size in registration.sizes_of(pair)] or [(None, registration.key_size_bits)]
        for pairs in (registration.transmitter_pairs, registration.receiver_pairs)
    ]
    start = link_keys_bits(block) + refills * PAD_SET_BITS
    for index in count():
        side, turn = index % 2, index // 2
        pair, size = pools[side][(block + turn) % len(pools[side])]
        if start + size > length:
            return
        if pair is not None:
            yield side, pair, start, start + size
        start += size
