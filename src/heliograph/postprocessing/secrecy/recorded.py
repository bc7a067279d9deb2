"""How long a key may be that comes of recorded sifted bits (security.md 10).

The length is that of Tomamichel et al. 2012 (theory.md 1.7) for n sifted bits and ideal preparation,

    l = n (1 - h(phase_error_upper)) - bias - disclosed - log2(2 / (eps_sec^2 eps_cor)),

and only the phase error is special:

- With test-basis counts (``PhaseSample``) it is the theorem's own bound, errors / k + mu(n, k, eps_sec).
- Without them nothing was measured, and the claim is *conditional*. Recorded keys have errors that depend on the bit,
  so the phase errors are taken to be no more frequent than the bit errors of the worse value: for each value v the rate
  given v among its n_v bits is treated as a sample of k = n_v, each of the two bounds at eps_sec / 2, and the larger
  bound counts. Neither symmetry of the errors nor fair bits are assumed.

``disclosed`` is the two-way rule ``both`` (chain rule, any source): parities of both directions, the announced counts,
and the verification hash. log2(2/eps_cor) is charged beside the hash's own 128 bits: at most 51 bits too careful.
A bias beyond 4 sigma, of either side's bits, contradicts equal efficiency: n log2(2 p_max) is deducted.

The length follows from observed counts while the theorem is for a preset one, so reports say ``indicative``
(security.md 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from heliograph.errors import BlockDiscarded, ConfigurationError, QBERTooHigh
from heliograph.postprocessing.reconciliation.charging import SIGMA_MAX
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.tomamichel2012 import bounds

__all__ = [
    "PhaseSample",
    "RecordedTerms",
    "Requirements",
    "ValueCounts",
    "assess",
    "bias_sigma",
    "check_size",
    "is_hopeless",
    "too_biased",
]

# From the security rules: security.md 5, verification is charged with the bits really sent.
_VERIFICATION_BITS: Final = 128
# Our choices: no run is started with a failure probability beyond these.
_EPS_MIN: Final = 1e-30
_EPS_MAX: Final = 1e-3


@dataclass(frozen=True, slots=True)
class PhaseSample:
    """Test-basis counts of the same run: ``errors`` in ``bits`` sifted bits of the other basis."""

    bits: int
    errors: int

    def __post_init__(self) -> None:
        if not (0 < self.bits < 2**48 and 0 <= self.errors <= self.bits):
            raise ConfigurationError(f"test counts: {self.errors} errors in {self.bits} bits cannot be")


@dataclass(frozen=True, slots=True)
class Requirements:
    """What both sides were told by their operators; no message changes it. Raises ConfigurationError.

    ``biased``: the recording that this is a block of is biased beyond 4 sigma as a whole; its blocks need not show it.
    """

    eps_sec: float
    eps_cor: float
    strict: bool = False
    sample: PhaseSample | None = None
    biased: bool = False

    def __post_init__(self) -> None:
        for name, eps in (("--eps-sec", self.eps_sec), ("--eps-cor", self.eps_cor)):
            if not _EPS_MIN <= eps <= _EPS_MAX:
                raise ConfigurationError(f"{name} {eps}: give a probability between {_EPS_MIN:g} and {_EPS_MAX:g}")

    def of_each(self, blocks: int, *, biased: bool = False) -> Requirements:
        """Return what each of ``blocks`` blocks must meet, so that all together meet this: failures add up.

        Raises ConfigurationError for so many blocks that a share is below what can be computed with.
        """
        if min(self.eps_sec, self.eps_cor) / blocks < _EPS_MIN:
            raise ConfigurationError(
                f"{blocks} blocks share the failure probabilities, and less than {_EPS_MIN:g} would be each one's: "
                "give larger ones, or larger blocks"
            )
        return replace(self, eps_sec=self.eps_sec / blocks, eps_cor=self.eps_cor / blocks, biased=biased)


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """Exact after reconciliation: the reference side's zeros and ones, and the other side's errors in each."""

    zeros: int
    errors_given_0: int
    ones: int
    errors_given_1: int

    def __post_init__(self) -> None:
        if not (0 <= self.errors_given_0 <= self.zeros and 0 <= self.errors_given_1 <= self.ones):
            raise ValueError(f"{self}: more errors than bits, or negative counts")
        if not self.total:
            raise ValueError("there are no bits")

    @property
    def total(self) -> int:
        """Sifted bits."""
        return self.zeros + self.ones

    @property
    def error_rate(self) -> float:
        """Errors per bit, of both values."""
        return (self.errors_given_0 + self.errors_given_1) / self.total

    def error_rate_given(self, value: int) -> float | None:
        """Errors per bit among the reference side's bits of ``value``; None without such bits."""
        bits, errors = (self.ones, self.errors_given_1) if value else (self.zeros, self.errors_given_0)
        return errors / bits if bits else None

    @property
    def ones_of_each_side(self) -> tuple[int, int]:
        """Ones on the reference side, and on the other side before it was corrected."""
        return self.ones, self.ones - self.errors_given_1 + self.errors_given_0


@dataclass(frozen=True, slots=True)
class RecordedTerms:
    """What the length is made of. ``bias_sigma`` is of the more biased side; all bits are whole and rounded up."""

    phase_error_upper: float
    bias_sigma: float
    bias_deducted_bits: int
    disclosed_bits: int
    fixed_bits: int
    secret_key_length: int


def bias_sigma(bits: int, *ones: int) -> float:
    """Return by how many standard deviations of fair bits the more biased side's number of ones is off."""
    return max(abs(2 * one - bits) / math.sqrt(bits) for one in ones)


def check_size(length_bits: int, requirements: Requirements) -> None:
    """Raise BlockDiscarded if so few bits give no key even without a single error."""
    best = ValueCounts((length_bits + 1) // 2, 0, length_bits // 2, 0)
    terms = _terms(best, _VERIFICATION_BITS, requirements)
    if terms.secret_key_length <= 0:
        raise BlockDiscarded(
            f"{length_bits} sifted bits are too few for a key at eps_sec {requirements.eps_sec:g}, "
            f"eps_cor {requirements.eps_cor:g}: even without bit errors the phase error is only known to be at most "
            f"{terms.phase_error_upper:.1%}; record a longer run"
        )


def is_hopeless(error_rate_lower: float, requirements: Requirements) -> bool:
    """Whether an error rate of at least this leaves no key of any size: perfect reconciliation, charged both ways."""
    entropy = binary_entropy(error_rate_lower) if error_rate_lower < 0.5 else 1.0
    return (1 if requirements.sample else 1 - entropy) - 2 * entropy <= 0


def assess(counts: ValueCounts, disclosed_bits: int, requirements: Requirements) -> RecordedTerms:
    """Return the terms of a block that yields a key of ``secret_key_length`` > 0 bits.

    ``disclosed_bits``: everything charged, by rule ``both``. Raises QBERTooHigh if nothing is left, and BlockDiscarded
    for a bias beyond 4 sigma if the requirements are strict.
    """
    terms = _terms(counts, disclosed_bits, requirements)
    if requirements.strict and terms.bias_deducted_bits:
        raise BlockDiscarded(too_biased(terms.bias_sigma))
    if terms.secret_key_length <= 0:
        given = ["none" if rate is None else f"{rate:.2%}" for rate in map(counts.error_rate_given, (0, 1))]
        raise QBERTooHigh(
            f"no secret key: {counts.total} sifted bits with an error rate of {counts.error_rate:.2%} "
            f"({given[0]} given 0, {given[1]} given 1), phase error at most {terms.phase_error_upper:.2%}, "
            f"{disclosed_bits} bits disclosed, {terms.bias_deducted_bits} deducted for bias; "
            "lower the error rate or record a longer run"
        )
    return terms


def too_biased(sigma: float) -> str:
    """Return the line for a bias that strict requirements refuse."""
    return (
        f"the bits are biased by {sigma:.1f} sigma, more than {SIGMA_MAX:g}: unequal detection "
        "efficiency; balance the detectors, or leave out --strict to have the bias deducted"
    )


def _terms(counts: ValueCounts, disclosed_bits: int, requirements: Requirements) -> RecordedTerms:
    n = counts.total
    # (1) phase error
    phase = _phase_error_upper(counts, requirements)
    # (2) bias, of either side
    sides = counts.ones_of_each_side
    sigma = bias_sigma(n, *sides)
    p_max = max(max(ones, n - ones) for ones in sides) / n
    bias = math.ceil(n * math.log2(2 * p_max)) if sigma > SIGMA_MAX or requirements.biased else 0
    # (3) the length; every term is rounded to the safe side
    fixed = math.ceil(1 - 2 * math.log2(requirements.eps_sec) - math.log2(requirements.eps_cor))
    length = math.floor(n * (1 - binary_entropy(phase))) - bias - disclosed_bits - fixed
    return RecordedTerms(phase, sigma, bias, disclosed_bits, fixed, max(length, 0))


def _phase_error_upper(counts: ValueCounts, requirements: Requirements) -> float:
    """Return the bound on the phase error rate, at most 1/2; the module's docstring says where it comes from."""
    n, sample = counts.total, requirements.sample
    if sample is not None:
        return bounds(n, sample.bits, sample.errors / sample.bits, requirements.eps_sec).phase_error_upper
    given = [
        bounds(n, bits, errors / max(bits, 1), requirements.eps_sec / 2).phase_error_upper
        for bits, errors in ((counts.zeros, counts.errors_given_0), (counts.ones, counts.errors_given_1))
    ]
    return max(given)
