"""Extensions of ETSI GS QKD 014 that this KME knows (6.2, 6.3): what an SAE may ask of its keys, and what it is told.

Asked for, each as a member of an object in ``extension_mandatory`` or ``extension_optional``:

    heliograph_key_facts: true           tell the facts of every key in its key_extension
    heliograph_max_age_s: 3600           no key older than that
    heliograph_assurance: "computational"    what authenticated the link was at least that

Told, in ``key_extension``: heliograph_protocol, heliograph_epsilon, heliograph_qber, heliograph_block,
heliograph_assurance, heliograph_age_s; in ``key_container_extension``: heliograph_path, the key managers it crossed.
Of a relayed key also heliograph_paths, the nodes of each path that a share of it took, heliograph_threshold, how many
shares give the key, and heliograph_layer, what the ends combined it with; heliograph_path is then the one path of all.
Of a key that crossed from or to another key manager also the extensions that came with it, as they came (E<PEN>_name).
All of it is public on the link. Facts that are not known of a key are left out, never made up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from heliograph.kme.supply import RequestRefused, WishUnmet
from heliograph.types import StoredKey

__all__ = ["KNOWN", "KeyFacts", "Wishes", "read_wishes", "wants_facts"]

FACTS, MAX_AGE, ASSURANCE = "heliograph_key_facts", "heliograph_max_age_s", "heliograph_assurance"
KNOWN = frozenset({FACTS, MAX_AGE, ASSURANCE})
# From the weakest to the strongest (authentication.assurance).
_ASSURANCES = ("computational", "information-theoretic since the bootstrap", "information-theoretic")
_LINK_PROTOCOL = "decoy-state BB84"  # keys of other origin carry its name with them


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for beyond number and size."""

    facts: bool = False
    max_age_s: float | None = None
    assurance: str | None = None

    def check(self, keys: Sequence[StoredKey]) -> None:
        """Return if the keys are as asked. Raises WishUnmet."""
        if self.assurance is None:
            return
        least = _ASSURANCES.index(self.assurance)
        for key in keys:
            found = _about(key).get("assurance")
            if found not in _ASSURANCES or _ASSURANCES.index(found) < least:
                raise WishUnmet(ASSURANCE, f"the next keys are not {self.assurance}")


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """How facts are told. ``now``: on the store's clock; ``path``: a key's KME IDs, this site's first."""

    now: float
    path: Callable[[StoredKey], tuple[str, ...]]

    def of(self, key: StoredKey) -> dict[str, object]:
        """Return the key_extension of a key."""
        about = _about(key)
        facts: dict[str, object] = {
            "heliograph_protocol": about.get("protocol", _LINK_PROTOCOL if "eps_sec" in about else None),
            "heliograph_block": list(key.block) if "eps_sec" in about else None,
            "heliograph_assurance": about.get("assurance"),
            "heliograph_age_s": round(max(0.0, self.now - key.created_at), 3),
        }
        if "eps_sec" in about:
            with suppress(KeyError, TypeError):  # altered
                facts |= _measured(about)
        for name in ("paths", "threshold", "layer"):
            facts[f"heliograph_{name}"] = about.get(name)
        known = {name: value for name, value in facts.items() if value is not None}
        # What other key managers said of it (ETSI GS QKD 020), unchanged: its names begin with E and a number.
        others = about.get("extensions")
        return {**(others if isinstance(others, dict) else {}), **known}

    def container(self, keys: Sequence[StoredKey]) -> dict[str, object]:
        """Return the key_container_extension: no path where not all of the keys came by the same one."""
        ways = [_about(key).get("paths") or [list(self.path(key))] for key in keys]
        if ways and len(ways[0]) == 1 and all(way == ways[0] for way in ways):
            return {"heliograph_path": ways[0][0]}
        return {}


def _about(key: StoredKey) -> dict[str, Any]:
    """Return what is known of a key: nothing where its text was altered in the store."""
    # Bound to no key: the key opens all the same, and has left when it is told about.
    try:
        found = json.loads(key.metadata)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _measured(about: Mapping[str, Any]) -> dict[str, object]:
    detections = sum(about["key"]["detections"])
    return {
        "heliograph_epsilon": about["eps_sec"] + about["eps_cor"],
        "heliograph_qber": round(sum(about["key"]["errors"]) / detections, 6) if detections else None,
    }


def read_wishes(mandatory: Mapping[str, object], optional: Mapping[str, object]) -> Wishes:
    """Read extensions by name; those in ``mandatory`` are all known. Raises RequestRefused for a value of no meaning.

    Of the optional ones the facts are told; the others are ignored, as 6.2 allows.
    """
    facts = mandatory.get(FACTS, False)
    if not isinstance(facts, bool):
        raise RequestRefused(f"{FACTS} must be true or false")
    age = mandatory.get(MAX_AGE)
    if MAX_AGE in mandatory and age is None:
        raise RequestRefused(f"{MAX_AGE} must be a number of seconds from 0 to 1e9")
    # Comparison is false for what is not a number in this range, and True is no number here.
    if age is not None and not (isinstance(age, int | float) and not isinstance(age, bool) and 0 <= age <= 1e9):
        raise RequestRefused(f"{MAX_AGE} must be a number of seconds from 0 to 1e9")
    least = mandatory.get(ASSURANCE)
    if ASSURANCE in mandatory and least not in _ASSURANCES:
        raise RequestRefused(f"{ASSURANCE} must be one of {', '.join(_ASSURANCES)}")
    return Wishes(
        facts=facts or wants_facts(optional),
        max_age_s=float(age) if isinstance(age, int | float) else None,
        assurance=str(least) if least is not None else None,
    )


def wants_facts(extension: Mapping[str, object]) -> bool:
    """Tell whether an optional extension asks for the facts of the keys."""
    return extension.get(FACTS) is True
