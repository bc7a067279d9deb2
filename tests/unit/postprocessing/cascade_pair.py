"""Both halves of reconciliation over one in-memory exchange, and noisy bits to feed them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from heliograph.bits import BitString
from heliograph.postprocessing.reconciliation.answering import Answerer
from heliograph.postprocessing.reconciliation.correcting import Corrected, Corrector
from heliograph.postprocessing.reconciliation.limits import Limits, unpack_parities
from heliograph.postprocessing.reconciliation.mirror import FEW_ROUNDS

PUBLIC_SEED = bytes(range(32))


def limits(n):
    return Limits(parities=4 * n + 10_000)


def generator(seed):
    """Return a seeded generator: tests repeat, sites never do."""
    return np.random.default_rng(seed)


def noisy(n, qber, seed=1):
    rng = generator([seed, n])
    bits = rng.integers(0, 2, n, dtype=np.uint8)
    return bits, (rng.random(n) < qber).astype(np.uint8)


@dataclass
class Exchange:
    answerer: Answerer
    result: Corrected
    asked: list[BitString]
    replies: list[BitString]

    def efficiency(self, errors):
        q = errors.mean()
        entropy = -q * math.log2(q) - (1 - q) * math.log2(1 - q)
        return self.answerer.parities / (len(errors) * entropy)


def run(answerer, corrector):
    """Let the halves talk to the end."""
    step = corrector.first_parities()
    while not isinstance(step, Corrected):
        step = corrector.advance(answerer.answer(step))
    return step


def reconcile(bits, errors, estimate, seed=PUBLIC_SEED, kernel=None, pace=FEW_ROUNDS):
    """Run both halves to the end; everything crosses as bytes."""
    allowed = limits(len(bits))
    answerer = Answerer(BitString.from_array(bits), seed, estimate, allowed, kernel=kernel, pace=pace)
    corrector = Corrector(BitString.from_array(bits ^ errors), seed, estimate, allowed, kernel=kernel, pace=pace)
    asked, replies = [], []
    step = corrector.first_parities()
    while not isinstance(step, Corrected):
        reply = answerer.answer(unpack_parities(step.to_bytes(), len(step)))
        asked.append(step)
        replies.append(reply)
        step = corrector.advance(unpack_parities(reply.to_bytes(), len(step)))
    return Exchange(answerer, step, asked, replies)
