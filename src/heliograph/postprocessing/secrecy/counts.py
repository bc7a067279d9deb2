"""What ``heliograph keyrate`` is asked: one document of counts, read into records that cannot be wrong.

Nothing is guessed, rounded or filled in: a field that is missing, unknown or impossible is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.count_bounds import Bound, Method, Prediction
from heliograph.postprocessing.secrecy.photons import WeakPulses
from heliograph.types import IntensityCounts

__all__ = ["COUNT_MAX", "DECOY_PROTOCOLS", "DecoyQuestion", "Epsilons", "SinglePhotonQuestion", "read_question"]

DECOY_PROTOCOLS: Final = ("lim2014", "rusca2018", "wiesemann2024")
SINGLE_PHOTON: Final = "tomamichel2012"
POLICIES: Final = ("fixed", "variable")
COUNT_MAX: Final = 2**53  # beyond it a count is no longer exact in the formulas

_LISTS: Final = ("key_counts", "test_counts", "key_errors", "test_errors")
_COMMON: Final = ("protocol", "leak_ec_bits", "eps_sec", "eps_cor")
_DECOY: Final = (*_COMMON, "bound", "intensities", "probabilities", *_LISTS)
_SINGLE: Final = (*_COMMON, "n", "k", "qber")


@dataclass(frozen=True, slots=True)
class Epsilons:
    """What is common to all questions: bits disclosed by reconciliation, epsilons in (0, 1), and the policy."""

    leak_ec_bits: int
    eps_sec: float
    eps_cor: float
    policy: str


@dataclass(frozen=True, slots=True)
class DecoyQuestion:
    """Counts of decoy-state BB84 and the theorem to judge them by."""

    protocol: str
    method: Method
    source: WeakPulses
    key: IntensityCounts
    test: IntensityCounts
    epsilons: Epsilons


@dataclass(frozen=True, slots=True)
class SinglePhotonQuestion:
    """``key_bits`` of one basis, ``test_bits`` of the other and their error rate ``qber``."""

    key_bits: int
    test_bits: int
    qber: float
    epsilons: Epsilons


def read_question(document: object) -> DecoyQuestion | SinglePhotonQuestion:
    """Check a parsed JSON document field by field. Raises ConfigurationError, naming the field and the remedy."""
    if not isinstance(document, dict):
        raise ConfigurationError("the document must be a JSON object with the field protocol")
    protocol = _choice(document, "protocol", (*DECOY_PROTOCOLS, SINGLE_PHOTON))
    single = protocol == SINGLE_PHOTON
    needed = _SINGLE if single else _DECOY
    optional = ("policy", "bound") if single else ("policy", "expected")
    for field in needed:
        if field not in document:
            raise ConfigurationError(f"{field}: missing; {protocol} needs {', '.join(needed)}")
    for field in document:
        if field not in (*needed, *optional):
            raise ConfigurationError(f"{str(field)[:40]!r}: {protocol} knows no such field")
    epsilons = Epsilons(
        _count(document["leak_ec_bits"], "leak_ec_bits"),
        _epsilon(document["eps_sec"], "eps_sec"),
        _epsilon(document["eps_cor"], "eps_cor"),
        _choice(document, "policy", POLICIES) if "policy" in document else POLICIES[0],
    )
    if single:
        return _read_single_photon(document, epsilons)
    return _read_decoy(protocol, document, epsilons)


def _read_single_photon(document: dict[str, object], epsilons: Epsilons) -> SinglePhotonQuestion:
    if "bound" in document:
        # Serfling's inequality is Hoeffding's for draws without replacement; the theorem has no other.
        _choice(document, "bound", ("hoeffding",))
    qber = _real(document["qber"], "qber")
    if qber > 1:
        raise ConfigurationError(f"qber = {qber:g}: must lie in [0, 1]; 0.02 is two per cent")
    return SinglePhotonQuestion(_count(document["n"], "n"), _count(document["k"], "k"), qber, epsilons)


def _read_decoy(protocol: str, document: dict[str, object], epsilons: Epsilons) -> DecoyQuestion:
    bound = Bound(_choice(document, "bound", tuple(b.value for b in Bound)))
    intensities = _reals(document["intensities"], "intensities")
    if not all(a > b for a, b in pairwise(intensities)):
        raise ConfigurationError(f"intensities = {list(intensities)}: must be strictly descending, signal first")
    size = len(intensities)
    probabilities = _reals(document["probabilities"], "probabilities", size)
    if min(probabilities) <= 0 or abs(math.fsum(probabilities) - 1) > 1e-9:
        raise ConfigurationError(f"probabilities = {list(probabilities)}: must be positive and sum to 1")
    counts = {name: _counts(document[name], name, size) for name in _LISTS}
    source = WeakPulses(intensities, probabilities)
    source.check(3 if protocol == "lim2014" else 2, protocol)
    return DecoyQuestion(
        protocol,
        Method(bound, _prediction(document.get("expected"), size, needed=bound is Bound.KATO)),
        source,
        _basis(counts, "key"),
        _basis(counts, "test"),
        epsilons,
    )


def _basis(counts: dict[str, tuple[int, ...]], name: str) -> IntensityCounts:
    detections, errors = counts[f"{name}_counts"], counts[f"{name}_errors"]
    for index, (n, m) in enumerate(zip(detections, errors, strict=True)):
        if m > n:
            raise ConfigurationError(f"{name}_errors[{index}] = {m}: more errors than the {n} detections")
    return IntensityCounts(detections, errors)


def _prediction(value: object, size: int, *, needed: bool) -> Prediction | None:
    if value is None and not needed:
        return None
    if not isinstance(value, dict) or set(value) != set(_LISTS):
        raise ConfigurationError(
            f"expected: kato needs an object with {', '.join(_LISTS)}, predicted before the data (numbers, one for "
            "each intensity)"
        )
    predicted = {name: _reals(value[name], f"expected.{name}", size) for name in _LISTS}
    return Prediction(**predicted)


def _choice(document: dict[str, object], field: str, known: tuple[str, ...]) -> str:
    if field not in document:
        raise ConfigurationError(f"{field}: missing; one of {', '.join(known)}")
    value = document[field]
    if not isinstance(value, str) or value not in known:
        raise ConfigurationError(f"{field} = {_short(value)}: must be one of {', '.join(known)}")
    return value


def _counts(value: object, field: str, size: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != size:
        raise ConfigurationError(f"{field}: must be a list of {size} whole numbers, one for each intensity")
    return tuple(_count(item, f"{field}[{index}]") for index, item in enumerate(value))


def _count(value: object, field: str) -> int:
    # 1e6 is a whole number as JSON means it; true and "3" are none.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{field} = {_short(value)}: must be a whole number")
    if value < 0:
        raise ConfigurationError(f"{field} = {_short(value)}: must not be negative; write 0 or more")
    if value > COUNT_MAX:
        raise ConfigurationError(f"{field}: larger than 2^53; no recording holds so many")
    return value


def _reals(value: object, field: str, size: int | None = None) -> tuple[float, ...]:
    if not isinstance(value, list) or not value or (size is not None and len(value) != size):
        wanted = "a list of numbers" if size is None else f"a list of {size} numbers, one for each intensity"
        raise ConfigurationError(f"{field}: must be {wanted}")
    return tuple(_real(item, f"{field}[{index}]") for index, item in enumerate(value))


def _real(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{field} = {_short(value)}: must be a number")
    # Compared before it becomes a float, since an integer of a thousand digits cannot.
    if not 0 <= value <= COUNT_MAX:
        raise ConfigurationError(f"{field} = {_short(value)}: must be a number from 0 to 2^53")
    return float(value)


def _epsilon(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ConfigurationError(f"{field} = {_short(value)}: must be a number strictly between 0 and 1, like 1e-15")
    return float(value)


def _short(value: object) -> str:
    """Return the value as a refusal shows it: never more than a few characters of it, never a second line."""
    text = repr(value) if not isinstance(value, list | dict) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."
