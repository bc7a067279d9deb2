"""The theorems a link may rest on, by name: the one place that leads from a registration to its formulas.

A link names its theorem in its registration, so both sites judge a block by the same one and reports can name it
(security.md 5). Everything else in this package sees a theorem only through ``Theorem``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy import lim2014_serfling, wiesemann2024
from heliograph.types import IntensityCounts, LightParameters

__all__ = ["Terms", "Theorem", "theorem_for", "theorem_named", "theorem_names"]


class Terms(Protocol):
    """What every theorem says about a block: the two quantities that acceptance tests."""

    @property
    def s1_lower(self) -> float:
        """Single-photon detections in the key basis, at least."""

    @property
    def phase_error_upper(self) -> float:
        """Their phase error rate, at most; never above 1/2."""


@dataclass(frozen=True, slots=True)
class Theorem:
    """A fixed-length theorem. ``title`` is what a reader is told, ``decoys`` how many the light must have.

    ``check_light`` raises ConfigurationError for light it does not cover; ``bounds(key, test, light, eps_sec)`` gives
    the terms; ``length(s1_lower, phase_error_upper, disclosed_bits, eps_sec, eps_cor)`` the bits before floor and
    clamp, rising with the first and falling with the next two, on which the acceptance set rests. ``remarks`` belong
    among a report's assumptions.
    """

    name: str
    title: str
    decoys: int
    check_light: Callable[[LightParameters], None]
    bounds: Callable[[IntensityCounts, IntensityCounts, LightParameters, float], Terms]
    length: Callable[[float, float, int, float, float], float]
    remarks: tuple[str, ...] = ()


_THEOREMS: Final = (
    Theorem(
        name="wiesemann2024",
        title="Wiesemann et al. 2024",
        decoys=1,
        check_light=wiesemann2024.check_light,
        bounds=wiesemann2024.bounds,
        length=wiesemann2024.secret_key_length,
    ),
    Theorem(
        name="lim2014-serfling",
        title="Lim et al. 2014 with Serfling's bound",
        decoys=2,
        check_light=lim2014_serfling.check_light,
        bounds=lim2014_serfling.bounds,
        length=lim2014_serfling.secret_key_length,
        remarks=("that Lim et al. 2014 holds with Serfling's bound and a preset acceptance set (ADR 0019)",),
    ),
)


def theorem_names() -> tuple[str, ...]:
    """Return the names of all theorems that a link may rest on."""
    return tuple(theorem.name for theorem in _THEOREMS)


def theorem_named(name: str) -> Theorem:
    """Return the theorem of that name. Raises ConfigurationError if there is none."""
    for theorem in _THEOREMS:
        if theorem.name == name:
            return theorem
    raise ConfigurationError(f"theorem = {name!r}: must be one of {', '.join(t.name for t in _THEOREMS)}")


def theorem_for(decoys: int) -> Theorem:
    """Return the theorem for light with so many decoys. Raises ConfigurationError if there is none."""
    for theorem in _THEOREMS:
        if theorem.decoys == decoys:
            return theorem
    raise ConfigurationError(f"decoys = {decoys}: must be one of {', '.join(str(t.decoys) for t in _THEOREMS)}")
