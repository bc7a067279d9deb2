"""The answer to a question about a link: the chosen light and what a block with it earns, one record for each place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from heliograph.postprocessing.secrecy.evaluate import THEOREM_TITLES
from heliograph.postprocessing.secrecy.link_question import LinkQuestion, Place
from heliograph.postprocessing.secrecy.objective import Goal, Outcome
from heliograph.postprocessing.secrecy.optimise import optimise_curve
from heliograph.postprocessing.secrecy.theorems import theorem_named

__all__ = ["LinkAnswer", "PlaceAnswer", "answer"]

_LINK: Final = "the link is as described: the figures are what an honest one is expected to give"
_FIXED: Final = (
    "the number of pulses, the acceptance set and the length are fixed before the first pulse",
    "intensities and their probabilities are as stated, phases are random",
    "the choice of intensity is independent of basis and bit",
    "detection efficiency does not depend on the basis; double clicks got a random bit",
)
_PRINTED: Final = (
    "indicative: a published curve at the expected counts, without margins: no key may rest on it",
    "indicative: the Fung-Ma-Chau gamma is for printed curves",
)


@dataclass(frozen=True, slots=True)
class PlaceAnswer:
    """One distance. Without a key ``secret_key_length`` is 0 and whatever describes a block is None.

    ``light`` holds intensities and probabilities, signal first, and the share of the Z basis at both ends;
    ``sifted_bits`` counts both bases; ``terms`` is the acceptance set, or a published curve's bounds;
    ``secret_key_rate_bps`` is per second of link time, pulses over clock.
    """

    distance_km: float | None
    loss_db: float
    secret_key_length: int
    secret_key_per_pulse: float
    secret_key_rate_bps: float
    raw_length: float | None
    pulses: int | None
    block_s: float | None
    sifted_bits: int | None
    key_bits: int | None
    qber: float | None
    leak_ec_bits: int | None
    light: dict[str, object] | None
    terms: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class LinkAnswer:
    """What all places share, and the places. ``label``: "fixed", or "indicative" if no key may rest on it."""

    protocol: str
    theorem: str
    policy: str
    label: str
    eps_sec: float
    eps_cor: float
    block: dict[str, int]
    link: dict[str, float]
    margin: dict[str, float]
    assumptions: tuple[str, ...]
    places: tuple[PlaceAnswer, ...]


def answer(question: LinkQuestion) -> LinkAnswer:
    """Choose the light for each place. Raises ConfigurationError if no light fits what is fixed."""
    goal = question.goal
    links = [place.link for place in question.places]
    outcomes = optimise_curve(goal, links, fixed=question.fixed, weakest=question.weakest)
    return LinkAnswer(
        protocol=goal.theorem,
        theorem=THEOREM_TITLES[goal.theorem] if goal.printed else theorem_named(goal.theorem).title,
        policy="variable" if goal.printed else "fixed",
        label="indicative" if goal.printed else "fixed",
        eps_sec=goal.eps_sec,
        eps_cor=goal.eps_cor,
        block={goal.block.kind: goal.block.amount},
        link=question.assumed,
        margin=asdict(goal.margin),
        assumptions=(*(_PRINTED if goal.printed else ()), _LINK, *_FIXED[1 if goal.printed else 0 :], *_remarks(goal)),
        places=tuple(_place(place, found) for place, found in zip(question.places, outcomes, strict=True)),
    )


def _remarks(goal: Goal) -> tuple[str, ...]:
    return () if goal.printed else theorem_named(goal.theorem).remarks


def _place(place: Place, found: Outcome | None) -> PlaceAnswer:
    if found is None:
        return PlaceAnswer(place.distance_km, place.loss_db, 0, 0.0, 0.0, *(None,) * 9)
    light = found.light
    key, test = found.expected
    per_pulse = found.secret_key_length / light.pulses
    terms = found.acceptance if found.acceptance is not None else found.terms
    assert terms is not None
    return PlaceAnswer(
        distance_km=place.distance_km,
        loss_db=place.loss_db,
        secret_key_length=found.secret_key_length,
        secret_key_per_pulse=per_pulse,
        secret_key_rate_bps=per_pulse * light.clock_hz,
        raw_length=found.raw_length,
        pulses=light.pulses,
        block_s=light.pulses / light.clock_hz,
        sifted_bits=sum(key.detections) + sum(test.detections),
        key_bits=sum(key.detections),
        qber=key.error_rate,
        leak_ec_bits=found.charged_bits,
        light={
            "intensities": list(light.intensities),
            "probabilities": list(light.intensity_probabilities),
            "z_probability": light.transmitter_z_probability,
        },
        terms=asdict(terms),
    )
