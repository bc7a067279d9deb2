"""How the secret bits of a block are divided; one fixed rule, the same on both sites (security.md 2, 8).

    | pad set of refill 1 | pad set of refill 2 | ... | key 0 | key 1 | key 2 | ... | rest, thrown away |

Keys with an even index belong to the transmitter's site, odd ones to the receiver's; ranges never change owner and
are cut once. Within a site's keys the pairs of SAEs take turns. Bits are counted once: refill and keys do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.bits import BitString
from heliograph.protocol.registration import LinkRegistration, SaePair

__all__ = ["CutBlock", "CutKey", "cut_block", "key_counts", "refills_fit"]


@dataclass(frozen=True, slots=True)
class CutKey:
    """One key's bytes and the pair it is allocated to."""

    pair: SaePair
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CutBlock:
    """A divided block: pad sets for the pool, keys by owner."""

    pad_sets: tuple[bytes, ...] = field(repr=False)
    transmitter_keys: tuple[CutKey, ...]
    receiver_keys: tuple[CutKey, ...]


def refills_fit(length: int, refills: int) -> bool:
    """Return whether a block of ``length`` secret bits can hold ``refills`` pad sets."""
    return refills * PAD_SET_BITS <= length


def key_counts(length: int, refills: int, registration: LinkRegistration) -> tuple[int, int]:
    """Return how many keys a block of ``length`` secret bits gives to the transmitter's and the receiver's site."""
    keys = max(0, length - refills * PAD_SET_BITS) // registration.key_size_bits
    transmitter = (keys + 1) // 2 if registration.transmitter_pairs else 0
    receiver = keys // 2 if registration.receiver_pairs else 0
    return transmitter, receiver


def cut_block(secret: BitString, refills: int, registration: LinkRegistration) -> CutBlock:
    """Divide ``secret``; ``refills`` pad sets first, which the caller made sure fit (``refills_fit``)."""
    pads = secret[: refills * PAD_SET_BITS].to_bytes()
    size = PAD_SET_BITS // 8
    pad_sets = tuple(pads[i * size : (i + 1) * size] for i in range(refills))
    start, step = refills * PAD_SET_BITS, registration.key_size_bits

    def take(first: int, count: int, pairs: tuple[SaePair, ...]) -> tuple[CutKey, ...]:
        keys = []
        for turn in range(count):
            at = start + (first + 2 * turn) * step
            keys.append(CutKey(pairs[turn % len(pairs)], secret[at : at + step].to_bytes()))
        return tuple(keys)

    transmitter, receiver = key_counts(len(secret), refills, registration)
    return CutBlock(
        pad_sets,
        take(0, transmitter, registration.transmitter_pairs),
        take(1, receiver, registration.receiver_pairs),
    )
