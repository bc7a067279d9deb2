"""How the secret bits of a block are divided; one fixed rule, the same on both sites (security.md 2, 8).

    | the link's keys | pad set of refill 1 | pad set of refill 2 | ... | key 0 | key 1 | ... | rest, thrown away |

Only a bootstrap block gives the link its keys: they take the place of the bootstrap.

Keys with an even index belong to the transmitter's site, odd ones to the receiver's; ranges never change owner and
are cut once. Within a site's keys the pairs of SAEs take turns, and which one begins goes on with the block's number,
so that small blocks leave out nobody. Bits are counted once: refill and keys do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    keys = max(0, length - link_keys_bits(block) - refills * PAD_SET_BITS) // registration.key_size_bits
    transmitter = (keys + 1) // 2 if registration.transmitter_pairs else 0
    receiver = keys // 2 if registration.receiver_pairs else 0
    return transmitter, receiver


def cut_block(block: int, secret: BitString, refills: int, registration: LinkRegistration) -> CutBlock:
    """Divide the secret of block ``block``; the caller made sure that ``refills`` pad sets fit (``refills_fit``)."""
    first = link_keys_bits(block)
    start, step = first + refills * PAD_SET_BITS, registration.key_size_bits
    pads, size = secret[first:start].to_bytes(), PAD_SET_BITS // 8
    pad_sets = tuple(pads[i * size : (i + 1) * size] for i in range(refills))

    def take(first: int, count: int, pairs: tuple[SaePair, ...]) -> tuple[CutKey, ...]:
        keys = []
        for turn in range(count):
            at = start + (first + 2 * turn) * step
            keys.append(CutKey(pairs[(block + turn) % len(pairs)], secret[at : at + step].to_bytes()))
        return tuple(keys)

    transmitter, receiver = key_counts(block, len(secret), refills, registration)
    return CutBlock(
        secret[:first].to_bytes(),
        pad_sets,
        take(0, transmitter, registration.transmitter_pairs),
        take(1, receiver, registration.receiver_pairs),
    )
