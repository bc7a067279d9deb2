"""Tags cut to a few bits, so that forgeries succeed often enough to be counted. For the lab only.

A whole tag is never forged while anyone watches, so "none accepted" alone would not show that the measurement can see
a forgery at all. Here the real Poly1305 tag is cut to its lowest bits, and the measured rate must be the expected one.

Two forgers. The first guesses: 2^-b. The second saw one tagged message and adds 2^b to its block. That moves the hash
by 2^b * r mod 2^130 - 5, whose b lowest bits are 5 times the top b - 6 bits of r (r is below 2^124; RFC 8439 2.5),
plus 5 where the sum passes the modulus: so 5 j is right with probability 2^-(b-6), 64 times better than a guess.
Cutting a tag costs far more than the bits that are cut, which is why tags are never truncated (security.md 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heliograph.authentication.mac import PAD_BYTES
from heliograph.authentication.methods.registry import DEFAULT_METHOD

__all__ = ["WEAK_BITS", "Accepts", "WeakTagTrial", "weak_tag_trials"]

WEAK_BITS = (8, 12, 16)
_GUESSES = 64  # for each tag; independent of each other, so each is a trial of its own
_SIGMAS = 4.0
_CLAMPED_TOP_BITS = 6  # 130 - 124

Tags = NDArray[np.int64]
Accepts = Callable[[Tags, Tags], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class WeakTagTrial:
    """One forger against tags of ``bits`` bits. ``fits``: the count is within 4 sigma of ``expected_rate``."""

    forger: str
    bits: int
    tried: int
    accepted: int
    expected_rate: float

    @property
    def sigmas(self) -> float:
        """How far the count is from its expectation, in standard deviations."""
        expected = self.tried * self.expected_rate
        return (self.accepted - expected) / math.sqrt(expected * (1 - self.expected_rate))

    @property
    def fits(self) -> bool:
        """Whether the rate is the expected one."""
        return abs(self.sigmas) <= _SIGMAS


def weak_tag_trials(pairs: int, seed: int, accepts: Accepts = np.equal) -> list[WeakTagTrial]:
    """Let both forgers try ``pairs`` fresh pads, each with one message of 16 bytes.

    ``accepts(expected, offered)``: the check of the cut tags; a test plants a weak one.
    """
    dice = np.random.default_rng(seed)
    pads = [dice.bytes(PAD_BYTES) for _ in range(pairs)]
    messages = [int.from_bytes(dice.bytes(16), "little") for _ in range(pairs)]
    trials = []
    for bits in WEAK_BITS:
        before = [message & ~(1 << bits) for message in messages]
        seen = _cut_tags(pads, before, bits)
        offered = dice.integers(0, 1 << bits, (pairs, _GUESSES))
        hits = int(accepts(seen[:, None], offered).sum())
        trials.append(WeakTagTrial("guesses", bits, pairs * _GUESSES, hits, 2.0**-bits))

        substituted = _cut_tags(pads, [message | 1 << bits for message in before], bits)
        middle = 1 << bits - _CLAMPED_TOP_BITS - 1
        hits = int(accepts(substituted, (seen + 5 * middle) % (1 << bits)).sum())
        rate = 2.0 ** -(bits - _CLAMPED_TOP_BITS)
        trials.append(WeakTagTrial("substitutes after one tagged message", bits, pairs, hits, rate))
    return trials


def _cut_tags(pads: list[bytes], messages: list[int], bits: int) -> Tags:
    """Return the lowest ``bits`` bits of the real tags."""
    mask = (1 << bits) - 1
    tag = DEFAULT_METHOD.tag
    return np.array(
        [
            int.from_bytes(tag(pad, (message.to_bytes(16, "little"),))[:4], "little") & mask
            for pad, message in zip(pads, messages, strict=True)
        ],
        np.int64,
    )
