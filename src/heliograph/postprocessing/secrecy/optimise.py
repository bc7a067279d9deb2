"""The light that gives the most key: intensities, their probabilities and the basis bias, for one link or a curve.

The search runs on ``batch_lengths``; what it ends at is rounded to a few digits and judged by the readable functions,
so a reported length never rests on the fast ones. A poor choice would cost key, never secrecy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.batch_bounds import Floats
from heliograph.postprocessing.secrecy.batch_lengths import ManyLengths, ManyLights, lengths
from heliograph.postprocessing.secrecy.link import LinkModel
from heliograph.postprocessing.secrecy.objective import Goal, Outcome, decoys_of, judge
from heliograph.postprocessing.secrecy.search import DEFAULT_EFFORT, Effort, maximise
from heliograph.postprocessing.secrecy.table import LightChoice

__all__ = ["WEAKEST", "optimise", "optimise_curve"]

WEAKEST: Final = 2e-4  # Lim et al. 2014, Fig. 1: an attenuator's leak, not a vacuum nobody can promise
DIGITS: Final = (4, 6, 8)  # significant, of each number that is chosen: the first that costs next to nothing
FREE: Final = ("signal", "decoy", "signal_probability", "z_probability", "decoy_probability")

# What is searched, as (least, most). The decoy as a share of the room below the signal, the first decoy's probability
# as a share of what is no signal; both then fit whatever the others are.
SIGNAL: Final = (0.005, 1.2)
DECOY_SHARE: Final = (0.003, 0.95)
PROBABILITY: Final = (0.002, 0.998)
Z_PROBABILITY: Final = (0.2, 0.9995)

ROUNDING: Final = 5e-4  # the share of the key that rounding may cost
CHUNK: Final = 512  # lights computed at a time: small enough for the processor's cache

Fixed = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Box:
    """The unit cube of what is free, and the way from its points to light."""

    decoys: int
    weakest: float
    fixed: Fixed

    @property
    def free(self) -> tuple[str, ...]:
        return tuple(name for name in FREE[: 3 + self.decoys] if name not in self.fixed)

    def lights(self, points: Floats) -> ManyLights:
        """Return the light at each point, one a row of numbers in [0, 1]."""
        unit = dict(zip(self.free, points.T, strict=True))

        def pick(name: str, scale: Callable[[Floats], Floats]) -> Floats:
            return np.full(len(points), self.fixed[name]) if name in self.fixed else scale(unit[name])

        floor = self.weakest if self.decoys == 2 else 0.0
        signal = pick("signal", _logarithmic(SIGNAL))
        decoy = pick("decoy", lambda x: floor + (signal - 2 * floor) * _logarithmic(DECOY_SHARE)(x))
        p_signal = pick("signal_probability", _logistic(PROBABILITY))
        z = pick("z_probability", _logistic(Z_PROBABILITY))
        if self.decoys == 1:
            return ManyLights(np.stack([signal, decoy]), np.stack([p_signal, 1 - p_signal]), z)
        p_decoy = pick("decoy_probability", lambda x: (1 - p_signal) * _logistic(PROBABILITY)(x))
        weakest = np.full(len(points), self.weakest)
        return ManyLights(np.stack([signal, decoy, weakest]), np.stack([p_signal, p_decoy, 1 - p_signal - p_decoy]), z)

    def choice(self, point: Sequence[float]) -> LightChoice:
        """Return the light at one point."""
        light = self.lights(np.array([point], dtype=np.float64))
        k, p, z = light.intensities[:, 0].tolist(), light.probabilities[:, 0].tolist(), float(light.z[0])
        if self.decoys == 1:
            return LightChoice(k[0], k[1], p[0], z)
        return LightChoice(k[0], k[1], p[0], z, p[1], self.weakest)


def optimise(
    goal: Goal,
    link: LinkModel,
    *,
    fixed: Fixed = MappingProxyType({}),
    weakest: float = WEAKEST,
    effort: Effort = DEFAULT_EFFORT,
) -> Outcome | None:
    """Return the block with the most key per pulse, or None if no light gives a key.

    ``fixed`` holds what is not to be chosen, by the names of ``LightChoice``; ``weakest`` is the second decoy, which is
    never chosen. Raises ConfigurationError if no light fits what is fixed.
    """
    return optimise_curve(goal, [link], fixed=fixed, weakest=weakest, effort=effort)[0]


def optimise_curve(
    goal: Goal,
    links: Iterable[LinkModel],
    *,
    fixed: Fixed = MappingProxyType({}),
    weakest: float = WEAKEST,
    effort: Effort = DEFAULT_EFFORT,
) -> list[Outcome | None]:
    """Return ``optimise`` for each link; each search starts from the one before it as well as anew."""
    box = _Box(decoys_of(goal.theorem), weakest, fixed)
    unknown = set(fixed) - set(FREE[: 3 + box.decoys])
    if unknown:
        raise ConfigurationError(f"light: {', '.join(sorted(unknown))}: not of {goal.theorem}'s light")
    found: list[Outcome | None] = []
    before: list[tuple[float, ...]] = []
    for link in links:
        point = _search(goal, link, box, before, effort)
        found.append(_judge(goal, link, box.choice(point), fixed))
        before = [point]
    return found


def _search(
    goal: Goal, link: LinkModel, box: _Box, starts: Sequence[Sequence[float]], effort: Effort
) -> tuple[float, ...]:
    def score(points: Floats) -> Floats:
        return np.concatenate(
            [_score(lengths(goal, link, box.lights(points[i : i + CHUNK]))) for i in range(0, len(points), CHUNK)]
        )

    dimensions = len(box.free)
    point = maximise(score, dimensions, starts, effort) if dimensions else ()
    if not math.isfinite(score(np.array([point], dtype=np.float64))[0]):
        raise ConfigurationError(f"light: nothing fits what is fixed ({_told(box)}) at {link.loss_db:.1f} dB")
    return point


def _score(found: ManyLengths) -> Floats:
    """Return the key per pulse, and where there is none, the share of the cost that is lacking, as a negative number.

    Bits would not do there: a light that detects nothing lacks the fewest of them and leads nowhere.
    """
    raw = found.raw_length
    best: Floats = np.where(raw > 0, raw / found.pulses, raw / found.cost)
    return best


def _judge(goal: Goal, link: LinkModel, choice: LightChoice, fixed: Fixed) -> Outcome | None:
    """Return the block with this light, or with as few digits of it as cost next to nothing; None without key."""
    found = exact = judge(goal, link, choice)
    for digits in DIGITS:
        try:
            rounded = judge(goal, link, _rounded(choice, digits, fixed))
        except ConfigurationError:
            continue
        if rounded.key_per_pulse >= exact.key_per_pulse - ROUNDING * abs(exact.key_per_pulse):
            found = rounded
            break
    return found if found.secret_key_length > 0 else None


def _rounded(choice: LightChoice, digits: int, fixed: Fixed) -> LightChoice:
    values = {name: getattr(choice, name) for name in FREE if name not in fixed}
    return replace(choice, **{k: float(f"{v:.{digits}g}") for k, v in values.items() if v is not None})


def _told(box: _Box) -> str:
    told = {**box.fixed, **({"weakest": box.weakest} if box.decoys == 2 else {})}
    return ", ".join(f"{name} = {value:g}" for name, value in told.items())


def _logarithmic(limits: tuple[float, float]) -> Callable[[Floats], Floats]:
    """Return the map of [0, 1] on the limits that is even in the logarithm."""
    low, high = (math.log(x) for x in limits)
    return lambda unit: np.exp(low + (high - low) * unit)


def _logistic(limits: tuple[float, float]) -> Callable[[Floats], Floats]:
    """Return the map of [0, 1] on the limits that is even in the logarithm of the odds."""
    low, high = (math.log(x / (1 - x)) for x in limits)
    return lambda unit: 1 / (1 + np.exp(-(low + (high - low) * unit)))
