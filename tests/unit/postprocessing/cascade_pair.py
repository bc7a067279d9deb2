"""Both halves of reconciliation over one in-memory exchange, and noisy bits to feed them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from heliograph.bits import BitString
from heliograph.postprocessing.reconciliation.answering import Answerer
from heliograph.postprocessing.reconciliation.correcting import Corrected, Corrector
from heliograph.postprocessing.reconciliation.queries import (
    Limits,
    Queries,
    pack_queries,
    unpack_queries,
    unpack_reply,
)

PUBLIC_SEED = bytes(range(32))


def limits(n, batch=1 << 16):
    return Limits(parities=4 * n + 10_000, batch=batch)


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
    asked: list[Queries]
    replies: list[BitString]

    def efficiency(self, errors):
        q = errors.mean()
        entropy = -q * math.log2(q) - (1 - q) * math.log2(1 - q)
        return self.answerer.parities / (len(errors) * entropy)


def run(answerer, corrector):
    """Let the halves talk to the end."""
    step = corrector.first_queries()
    while not isinstance(step, Corrected):
        step = corrector.advance(answerer.answer(step))
    return step


def reconcile(bits, errors, estimate, seed=PUBLIC_SEED, batch=1 << 16):
    """Run both halves to the end; everything crosses as bytes."""
    allowed = limits(len(bits), batch)
    answerer = Answerer(BitString.from_array(bits), seed, allowed)
    corrector = Corrector(BitString.from_array(bits ^ errors), seed, estimate, allowed)
    asked, replies = [], []
    step = corrector.first_queries()
    while not isinstance(step, Corrected):
        queries = unpack_queries(pack_queries(step))
        reply = answerer.answer(queries)
        asked.append(queries)
        replies.append(reply)
        step = corrector.advance(unpack_reply(reply.to_bytes(), len(step)))
    return Exchange(answerer, step, asked, replies)
