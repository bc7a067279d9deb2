"""Counts for the theorems' tests: what an honest link gives, and what a drawn channel of any kind gives."""

from __future__ import annotations

import math

import numpy as np

from heliograph.postprocessing.secrecy.count_bounds import Prediction
from heliograph.types import IntensityCounts


def honest(intensities, probabilities, *, pulses=10**10, loss_db=20.0, qber=0.01, dark=1e-6):
    """Mean counts (key, test) of an honest link, unrounded to whole numbers only at the end."""
    key, test = [], []
    for share, basis in ((0.81, key), (0.01, test)):
        for k, p in zip(intensities, probabilities, strict=True):
            light = 1 - math.exp(-k * 10 ** (-loss_db / 10))
            sent = pulses * share * p
            n = round(sent * (dark + light))
            basis.append((n, min(n, round(sent * (dark / 2 + light * qber)))))
    return IntensityCounts(*zip(*key, strict=True)), IntensityCounts(*zip(*test, strict=True))


def prediction(key, test):
    """Take the same numbers as a prediction."""
    return Prediction(key.detections, test.detections, key.errors, test.errors)


EVES_CHOICES = ("honest", "photon number splitting", "blocks single photons", "random")


def chosen_by_eve(choice, size, dark, rng):
    """Return the yields and error rates of 0 to ``size`` - 1 photons; ``dark``: the yield of the vacuum."""
    photons = np.arange(size)
    errors = np.concatenate([[0.5], np.full(size - 1, 0.02)])
    match choice:
        case "honest":
            return 1 - (1 - dark) * (1 - 0.05) ** photons, errors
        case "photon number splitting":
            return np.where(photons >= 2, 0.15, 0.01), errors
        case "blocks single photons":
            return np.where(photons == 1, 0.0, 0.05), errors
        case _:
            return rng.uniform(0, 0.1, size), np.concatenate([[0.5], rng.uniform(0, 0.3, size - 1)])


def drawn(yields, errors, pulses, source, rng):
    """Draw one basis of any channel: photon numbers first, then intensities by Bayes' rule.

    Returns the counts and the truth: vacuum detections, single-photon detections, single-photon errors.
    """
    photons = np.arange(len(yields))
    factorials = np.array([math.factorial(n) for n in photons], dtype=float)
    pairs = zip(source.intensities, source.probabilities, strict=True)
    joint = np.array([p * math.exp(-k) * k**photons / factorials for k, p in pairs])  # (intensity, photons)
    tau = joint.sum(axis=0)
    seen = rng.binomial(pulses, tau * yields)
    wrong = rng.binomial(seen, errors)
    shares = (joint / tau).T
    c = rng.multinomial(wrong, shares).sum(axis=0)
    n = c + rng.multinomial(seen - wrong, shares).sum(axis=0)
    counts = IntensityCounts(tuple(int(x) for x in n), tuple(int(x) for x in c))
    return counts, int(seen[0]), int(seen[1]), int(wrong[1])
