"""One answer to one question: which theorem, how many bits, and what they rest on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final

from heliograph.postprocessing.secrecy import lim2014, rusca2018, tomamichel2012, wiesemann2024
from heliograph.postprocessing.secrecy.counts import DecoyQuestion, Epsilons, SinglePhotonQuestion
from heliograph.postprocessing.secrecy.photons import SMALLEST
from heliograph.types import LightParameters

__all__ = ["THEOREM_TITLES", "KeyRate", "evaluate"]

THEOREM_TITLES: Final = {
    "lim2014": "Lim et al., PRA 89, 022307 (2014), 2-decoy",
    "rusca2018": "Rusca et al., APL 112, 171104 (2018), 1-decoy",
    "wiesemann2024": "Wiesemann et al., arXiv:2405.16578, 1-decoy",
    "tomamichel2012": "Tomamichel et al., Nat. Commun. 3, 634 (2012)",
}
_DISCLOSED: Final = "leak_ec_bits is everything disclosed about the key, verification and both directions included"
_RUN: Final = "the length of the run was fixed in advance: no sifting quota"
_DETECTION: Final = "detection efficiency does not depend on the basis; double clicks got a random bit"
_DECOY: Final = (
    "intensities and their probabilities are as stated, phases are random",
    "the choice of intensity is independent of basis and bit",
    _DETECTION,
    _RUN,
    _DISCLOSED,
)
_SINGLE: Final = (
    "single photons, or BBM92, in two mutually unbiased bases (q = 1)",
    _DETECTION,
    _RUN,
    _DISCLOSED,
)
_FIXED: Final = "these counts are the corner of an acceptance set that was fixed before the first pulse"
_VARIABLE: Final = "indicative: no variable-length theorem covers a length computed from observed counts"
_PRINTED: Final = "indicative: the Fung-Ma-Chau gamma is for printed curves, no key may rest on it"
_PREDICTED: Final = "expected was fixed before the data"


@dataclass(frozen=True, slots=True)
class KeyRate:
    """The answer. ``raw_length``: bits before floor and clamp, finite; ``secret_key_length``: whole, never negative.

    ``label``: "fixed" if the length is a claim under ``assumptions``, "indicative" if it is none (security.md 5).
    """

    protocol: str
    theorem: str
    bound: str
    policy: str
    label: str
    secret_key_length: int
    raw_length: float
    terms: dict[str, float]
    leak_ec_bits: int
    eps_sec: float
    eps_cor: float
    assumptions: tuple[str, ...]


def evaluate(question: DecoyQuestion | SinglePhotonQuestion) -> KeyRate:
    """Judge counts by the theorem they name. Raises ConfigurationError for a source that the theorem does not cover."""
    if isinstance(question, SinglePhotonQuestion):
        e = question.epsilons
        terms = tomamichel2012.bounds(question.key_bits, question.test_bits, question.qber, e.eps_sec)
        length = tomamichel2012.secret_key_length(terms, e.leak_ec_bits, e.eps_sec, e.eps_cor)
        return _answer("tomamichel2012", "serfling", length, asdict(terms), e, _SINGLE)
    return _evaluate_decoy(question)


def _evaluate_decoy(question: DecoyQuestion) -> KeyRate:
    e, method = question.epsilons, question.method
    key, test, source = question.key, question.test, question.source
    if question.protocol == "lim2014":
        two = lim2014.bounds(key, test, source, e.eps_sec, method)
        length = lim2014.secret_key_length(
            two.s0_lower, two.s1_lower, two.phase_error_upper, e.leak_ec_bits, e.eps_sec, e.eps_cor
        )
        terms = asdict(two)
    elif question.protocol == "rusca2018":
        one = rusca2018.bounds(key, test, source, e.eps_sec, method)
        length = rusca2018.secret_key_length(one, e.leak_ec_bits, e.eps_sec, e.eps_cor)
        terms = asdict(one)
    else:
        fixed = _wiesemann(question)
        length = wiesemann2024.secret_key_length(
            fixed.s1_lower, fixed.phase_error_upper, e.leak_ec_bits, e.eps_sec, e.eps_cor
        )
        # Vacuum events are not credited; gamma is the name that all theorems share for what sampling adds.
        terms = {"s0_lower": 0.0, **asdict(fixed), "gamma": fixed.serfling}
    assumptions = _DECOY if method.prediction is None else (*_DECOY, _PREDICTED)
    return _answer(question.protocol, method.bound.value, length, terms, e, assumptions)


def _wiesemann(question: DecoyQuestion) -> wiesemann2024.Terms:
    """Return the terms; a decoy of 0, or next to it, tells nothing about single photons."""
    key, test, source = question.key, question.test, question.source
    if source.intensities[-1] < SMALLEST:
        n, k = float(sum(key.detections)), float(sum(test.detections))
        return wiesemann2024.Terms(n, k, 0.0, 0.0, k, serfling=0.5, phase_error_upper=0.5)
    # The bound reads the intensities and their probabilities; the rest of the light is not among the counts.
    light = LightParameters(1, 1.0, source.intensities, source.probabilities, 0.5, 0.5)
    return wiesemann2024.bounds(key, test, light, question.epsilons.eps_sec, question.method)


def _answer(
    protocol: str, bound: str, length: float, terms: dict[str, float], e: Epsilons, assumptions: tuple[str, ...]
) -> KeyRate:
    reasons = [_PRINTED] if protocol in ("lim2014", "rusca2018") else []
    reasons += [_VARIABLE] if e.policy == "variable" else []
    return KeyRate(
        protocol=protocol,
        theorem=THEOREM_TITLES[protocol],
        bound=bound,
        policy=e.policy,
        label="indicative" if reasons else "fixed",
        secret_key_length=max(0, math.floor(length)),
        raw_length=length,
        terms=terms,
        leak_ec_bits=e.leak_ec_bits,
        eps_sec=e.eps_sec,
        eps_cor=e.eps_cor,
        assumptions=(*reasons, *([_FIXED] if e.policy == "fixed" else []), *assumptions),
    )
