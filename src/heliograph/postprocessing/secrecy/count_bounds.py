"""What the counts of each intensity leave possible for their expectation, given the photon number of each event.

Given which events held how many photons, the intensity of each event is a draw of the transmitter's own: the count of
one intensity has the expectation sum_m p(k|m) s_m. A decoy bound solves these sums for s_0 and s_1, and needs a lower
or an upper bound on each. Three ways (theory.md 1.6), each one-sided at the same eps, so that each may stand in for
another without changing how a theorem splits its eps_sec:

- Hoeffding: the deviation comes from the total of the basis (Lim 2014, Eq. 3);
- Chernoff: from the intensity's own count, for independent draws (Yin et al. 2020);
- Kato: a martingale bound whose constant is fixed by a prediction made before the data. Of the prediction only the
  share of each intensity is used, so it need not know how many events a block will have.

Nothing is clamped here: a lower bound may be negative, as in the papers. That is never less careful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from heliograph.postprocessing.secrecy.concentration import (
    chernoff_lower,
    chernoff_upper,
    hoeffding,
    kato,
    kato_slope,
)

__all__ = ["HOEFFDING", "Bound", "CountBounds", "Method", "Prediction", "bound_counts", "mean_of_coin_flips"]


class Bound(Enum):
    """Which inequality is used."""

    HOEFFDING = "hoeffding"
    CHERNOFF = "chernoff"
    KATO = "kato"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one expected to count before the pulses were sent; one entry for each intensity, not negative."""

    key_counts: tuple[float, ...]
    test_counts: tuple[float, ...]
    key_errors: tuple[float, ...]
    test_errors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """An inequality and, for Kato's, the prediction that fixes its constant. Raises ValueError if one is without it."""

    bound: Bound = Bound.HOEFFDING
    prediction: Prediction | None = None

    def __post_init__(self) -> None:
        if self.bound is Bound.KATO and self.prediction is None:
            raise ValueError("Kato's bound needs a prediction that was fixed before the data")


HOEFFDING: Final = Method()


@dataclass(frozen=True, slots=True)
class CountBounds:
    """One-sided bounds on the expectation of each intensity's count; ``lower`` may be negative."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]


def bound_counts(
    counts: Sequence[int], bound: Bound, ln_inverse_eps: float, predicted: Sequence[float] | None = None
) -> CountBounds:
    """Bound the expectation of each of ``counts`` (one basis, all intensities), each side failing with eps.

    ``predicted`` has the same length and is used by Kato's bound alone; all zero means that nothing was predicted,
    which gives deviations of Hoeffding's size.
    """
    total = sum(counts)
    if bound is Bound.HOEFFDING:
        d = hoeffding(total, ln_inverse_eps)
        return CountBounds(tuple(x - d for x in counts), tuple(x + d for x in counts))
    if bound is Bound.CHERNOFF:
        return CountBounds(
            tuple(chernoff_lower(x, ln_inverse_eps) for x in counts),
            tuple(chernoff_upper(x, ln_inverse_eps) for x in counts),
        )
    if predicted is None or len(predicted) != len(counts):
        raise ValueError("Kato's bound needs a prediction for each count")
    # Only the predicted share of each intensity enters; the number of trials is what the bound is conditioned on.
    told = sum(predicted)
    lower, upper = [], []
    for x, prediction in zip(counts, predicted, strict=True):
        share = min(1.0, prediction / told) if told > 0 else 0.5
        rise, fall = (kato_slope(total, part * total, ln_inverse_eps) for part in (share, 1 - share))
        upper.append(x + kato(total, x, rise, ln_inverse_eps))
        lower.append(x - kato(total, total - x, fall, ln_inverse_eps))
    return CountBounds(tuple(lower), tuple(upper))


def mean_of_coin_flips(heads_upper: float, total: int, bound: Bound, ln_inverse_eps: float) -> float:
    """Return an upper bound on half the number of vacuum events, of which at most ``heads_upper`` were errors.

    A vacuum pulse holds no bit, so each of its detections is an error with probability 1/2, independently of all else.
    Beside Hoeffding's bounds the deviation comes from the basis' ``total`` (Rusca 2018); beside Chernoff's and Kato's
    it is Chernoff's, from ``heads_upper``: the flips are independent, and Kato's would need their number.
    """
    if bound is Bound.HOEFFDING:
        return heads_upper + hoeffding(total, ln_inverse_eps)
    return chernoff_upper(heads_upper, ln_inverse_eps)
