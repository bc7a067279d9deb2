"""What ``heliograph keyrate --link`` is asked: one document about a link, read into records that cannot be wrong.

    theorem = "wiesemann2024"    # or decoys = 1; see objective.PRINTED for the published curves
    eps_sec = 1e-15
    eps_cor = 1e-15

    [link]                       # what is not given is as in fibre_link(): the detectors of Lim et al. 2014
    distance_km = 25             # or a list, or {from = 0, to = 150, step = 5}; or loss_db, of the fibre alone
    attenuation_db_per_km = 0.2
    receiver_loss_db = 0.0
    detector_efficiency = 0.1
    dark_count_probability = 6e-7
    misalignment = 0.005
    afterpulse_probability = 0.04
    afterpulse_decay_s = 1e-6
    dead_time_s = 1e-6
    clock_hz = 1e9

    [block]
    sifted_bits = 1000000        # both bases; or pulses; or, for a published curve, key_bits

    [light]                      # only what is not to be chosen
    signal = 0.4

    [margin]                     # see planning.Margin

A field that is unknown, impossible or contradicts another is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Final

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy import link as defaults
from heliograph.postprocessing.secrecy.link import LinkModel
from heliograph.postprocessing.secrecy.objective import BLOCK_KINDS, PRINTED, PRINTED_MARGIN, BlockSize, Goal, decoys_of
from heliograph.postprocessing.secrecy.optimise import WEAKEST
from heliograph.postprocessing.secrecy.photons import BRIGHTEST, SMALLEST
from heliograph.postprocessing.secrecy.planning import DEFAULT_EPS, Margin
from heliograph.postprocessing.secrecy.theorems import theorem_for

__all__ = ["POINTS_MAX", "LinkQuestion", "Place", "read_link_question"]

POINTS_MAX: Final = 200  # distances; each takes about a second
KM_MAX: Final = 1000.0
DB_MAX: Final = 200.0  # beyond it a float no longer tells light from none
BLOCK_MAX: Final = 2**48  # pulses, types.LightParameters
CLOCK_MAX: Final = 1e12
SECONDS_MAX: Final = 1.0  # of dead time and of decay

# Field by field: the least, the most, and the default, None for one that must be given or may be absent.
_LINK: Final[dict[str, tuple[float, float, float | None]]] = {
    "attenuation_db_per_km": (0.0, 100.0, defaults.FIBRE_DB_PER_KM),
    "receiver_loss_db": (0.0, DB_MAX, 0.0),
    "detector_efficiency": (1e-6, 1.0, defaults.DETECTOR_EFFICIENCY),
    "dark_count_probability": (0.0, 0.5, defaults.DARK_COUNT_PROBABILITY),
    "misalignment": (0.0, 0.5, defaults.MISALIGNMENT),
    "afterpulse_probability": (0.0, 0.5, defaults.AFTERPULSE_PROBABILITY),
    "afterpulse_decay_s": (0.0, SECONDS_MAX, defaults.AFTERPULSE_DECAY_S),
    "dead_time_s": (0.0, SECONDS_MAX, defaults.DEAD_TIME_S),
    "clock_hz": (1.0, CLOCK_MAX, defaults.CLOCK_HZ),
}
_LIGHT: Final[dict[str, tuple[float, float]]] = {
    "signal": (SMALLEST, BRIGHTEST),
    "decoy": (SMALLEST, BRIGHTEST),
    "weakest": (0.0, BRIGHTEST),
    "signal_probability": (SMALLEST, 1 - SMALLEST),
    "decoy_probability": (SMALLEST, 1 - SMALLEST),
    "z_probability": (SMALLEST, 1 - SMALLEST),
}
_MARGIN: Final[dict[str, float]] = {
    "sigmas": 100,
    "qber": 10,
    "detections": 0.9,
    "efficiency": 10,
    "constant_bits": 1e9,
}
_TOP: Final = ("theorem", "decoys", "eps_sec", "eps_cor", "link", "block", "light", "margin")


@dataclass(frozen=True, slots=True)
class Place:
    """One point of the curve: the fibre's length, None if only its loss was given, its loss, and the link."""

    distance_km: float | None
    loss_db: float
    link: LinkModel


@dataclass(frozen=True, slots=True)
class LinkQuestion:
    """``places`` in the order asked, ``is_curve`` if a list or a range was; ``assumed``: every figure of [link] used.

    ``fixed`` and ``weakest`` as ``optimise`` takes them.
    """

    goal: Goal
    places: tuple[Place, ...]
    is_curve: bool
    assumed: dict[str, float]
    fixed: dict[str, float]
    weakest: float


def read_link_question(document: Mapping[str, object]) -> LinkQuestion:
    """Check a parsed TOML document field by field. Raises ConfigurationError, naming the field and the remedy."""
    _known(document, _TOP, "")
    theorem = _theorem(document)
    link, block = _table(document, "link", needed=True), _table(document, "block", needed=True)
    light, margin = _table(document, "light"), _table(document, "margin")
    given = [kind for kind in BLOCK_KINDS if kind in block]
    _known(block, BLOCK_KINDS, "block.")
    if len(given) != 1:
        raise ConfigurationError(f"block: give exactly one of {', '.join(BLOCK_KINDS)}")
    goal = Goal(
        theorem,
        BlockSize(given[0], _whole(block[given[0]], f"block.{given[0]}", BLOCK_MAX - 1)),
        _epsilon(document, "eps_sec"),
        _epsilon(document, "eps_cor"),
        _margin(theorem, margin),
    )
    assumed, places, is_curve = _places(link)
    fixed, weakest = _light(decoys_of(theorem), light)
    return LinkQuestion(goal, places, is_curve, assumed, fixed, weakest)


def _theorem(document: Mapping[str, object]) -> str:
    theorem, decoys = document.get("theorem"), document.get("decoys")
    if theorem is not None and not isinstance(theorem, str):
        raise ConfigurationError(f"theorem = {_short(theorem)}: must be a name")
    if decoys is None:
        name = theorem or theorem_for(1).name
        decoys_of(name)
        return name
    count = _whole(decoys, "decoys", 2)
    name = theorem or theorem_for(count).name
    if decoys_of(name) != count:
        raise ConfigurationError(f"decoys = {count} contradicts theorem = {name!r}, which has {decoys_of(name)}")
    return name


def _places(link: Mapping[str, object]) -> tuple[dict[str, float], tuple[Place, ...], bool]:
    _known(link, (*_LINK, "distance_km", "loss_db"), "link.")
    if ("distance_km" in link) == ("loss_db" in link):
        raise ConfigurationError("link: give either distance_km or loss_db, of the fibre without the receiver")
    by_loss = "loss_db" in link
    if by_loss and "attenuation_db_per_km" in link:
        raise ConfigurationError("link: attenuation_db_per_km says nothing beside loss_db; give it with distance_km")
    used = {
        name: _real(link[name], f"link.{name}", least, most) if name in link else default
        for name, (least, most, default) in _LINK.items()
        if default is not None and not (by_loss and name == "attenuation_db_per_km")
    }
    field = "loss_db" if by_loss else "distance_km"
    values, is_curve = _points(link[field], f"link.{field}", DB_MAX if by_loss else KM_MAX)
    places = []
    for value in values:
        loss = value if by_loss else value * used["attenuation_db_per_km"]
        total = loss + used["receiver_loss_db"]
        if total > DB_MAX:
            raise ConfigurationError(f"link: {total:g} dB before the detectors; beyond {DB_MAX:g} dB no light arrives")
        model = LinkModel(
            clock_hz=used["clock_hz"],
            transmittance=used["detector_efficiency"] * 10 ** (-total / 10),
            dark_count_probability=used["dark_count_probability"],
            misalignment=used["misalignment"],
            afterpulse_probability=used["afterpulse_probability"],
            dead_time_s=used["dead_time_s"],
            afterpulse_decay_s=used["afterpulse_decay_s"],
        )
        places.append(Place(None if by_loss else value, loss, model))
    return used, tuple(places), is_curve


def _points(value: object, field: str, most: float) -> tuple[tuple[float, ...], bool]:
    """Read a number, a list of numbers or a range into the points of a curve."""
    if isinstance(value, list):
        if not 1 <= len(value) <= POINTS_MAX:
            raise ConfigurationError(f"{field}: a list of 1 to {POINTS_MAX} numbers is needed, not of {len(value)}")
        return tuple(_real(item, f"{field}[{i}]", 0, most) for i, item in enumerate(value)), True
    if not isinstance(value, dict):
        return (_real(value, field, 0, most),), False
    if set(value) != {"from", "to", "step"}:
        raise ConfigurationError(f"{field}: a range is {{from = ..., to = ..., step = ...}}")
    low, high = (_real(value[name], f"{field}.{name}", 0, most) for name in ("from", "to"))
    step = _real(value["step"], f"{field}.step", 0, most)
    if not (step > 0 and high >= low):
        raise ConfigurationError(f"{field}: a range needs step > 0 and to >= from")
    count = math.floor((high - low) / step * (1 + 1e-12) + 1e-9) + 1
    if count > POINTS_MAX:
        raise ConfigurationError(f"{field}: {count} points; at most {POINTS_MAX}: take a larger step")
    return tuple(round(low + i * step, 9) for i in range(count)), True


def _light(decoys: int, light: Mapping[str, object]) -> tuple[dict[str, float], float]:
    _known(light, tuple(_LIGHT), "light.")
    if decoys == 1:
        for name in ("weakest", "decoy_probability"):
            if name in light:
                raise ConfigurationError(f"light.{name}: only with two decoys; one has a signal and a decoy")
    given = {name: _real(light[name], f"light.{name}", *_LIGHT[name]) for name in _LIGHT if name in light}
    weakest = given.pop("weakest", WEAKEST)
    floor = weakest if decoys == 2 else 0.0
    order = [given.get("signal"), given.get("decoy"), floor]
    levels = [x for x in order if x is not None]
    if any(a <= b for a, b in pairwise(levels)):
        raise ConfigurationError(
            f"light: signal, decoy and weakest must descend: {', '.join(f'{x:g}' for x in levels)}"
        )
    if given.get("signal_probability", 0) + given.get("decoy_probability", 0) >= 1:
        raise ConfigurationError("light: signal_probability and decoy_probability leave nothing for the weakest")
    return given, weakest


def _margin(theorem: str, margin: Mapping[str, object]) -> Margin:
    base = PRINTED_MARGIN if theorem in PRINTED else Margin()
    names = tuple(f.name for f in fields(Margin))
    _known(margin, names, "margin.")
    used = asdict(base)
    for name in names:
        if name == "constant_bits" and name in margin:
            used[name] = _whole(margin[name], "margin.constant_bits", int(_MARGIN[name]), least=0)
        elif name in margin:
            used[name] = _real(margin[name], f"margin.{name}", 1 if name == "efficiency" else 0, _MARGIN[name])
    return Margin(**used)


def _table(document: Mapping[str, object], name: str, *, needed: bool = False) -> Mapping[str, object]:
    if name not in document:
        if needed:
            raise ConfigurationError(f"[{name}]: missing; add it (docs/how-to/keyrate.md shows one)")
        return {}
    value = document[name]
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name}: must be a table, [{name}]")
    return value


def _known(table: Mapping[str, object], names: tuple[str, ...], prefix: str) -> None:
    for name in table:
        if name not in names:
            raise ConfigurationError(f"{prefix}{_short(name)}: unknown; known are {', '.join(names)}")


def _real(value: object, field: str, least: float, most: float) -> float:
    # Compared before it becomes a float, since an integer of a thousand digits cannot; NaN fails every comparison.
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(f"{field} = {_short(value)}: must be a number from {least:g} to {most:g}")
    return float(value)


def _whole(value: object, field: str, most: int, *, least: int = 1) -> int:
    # 1e6 is a whole number to who writes it; true and "3" are none.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(f"{field} = {_short(value)}: must be a whole number from {least} to {most}")
    return value


def _epsilon(document: Mapping[str, object], field: str) -> float:
    value = document.get(field, DEFAULT_EPS)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-300 <= value < 1:
        raise ConfigurationError(f"{field} = {_short(value)}: must be a number below 1 and above 1e-300, like 1e-15")
    return float(value)


def _short(value: object) -> str:
    """Return the value as a refusal shows it: never more than a few characters of it, never a second line."""
    if isinstance(value, int) and not -(10**30) < value < 10**30:
        return "a number of many digits"
    shown = repr(value) if not isinstance(value, list | dict) else f"a {type(value).__name__}"
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
