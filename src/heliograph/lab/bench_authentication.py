"""``heliograph bench authentication``: are forgeries refused, do weak tags fail as expected, what does it cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from heliograph.authentication.mac import PAD_BYTES
from heliograph.authentication.methods.interface import TagMethod
from heliograph.authentication.methods.registry import DEFAULT_METHOD, TAG_METHODS
from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.lab.bench_rows import best_seconds, row
from heliograph.lab.forgeries import ForgeryCount, try_method, try_pad_store
from heliograph.lab.weak_tags import Accepts, weak_tag_trials
from heliograph.site.setup import STEADY_BITS, plan_registration

__all__ = ["run"]

_SEED: Final = 1  # the same forgeries each time, so that a rate outside 4 sigma is a finding and not a bad day
_SMALL_BYTES, _LARGE_BYTES = 64, 2**20
_DISTANCE_KM: Final = 25.0
_SHARE_MAX: Final = 0.01  # the promise: authentication takes less than 1 % of the key


def run(
    *,
    forgeries: int = 1_000_000,
    pad_store_blocks: int = 3,
    weak_pairs: int = 2**16,
    methods: Mapping[str, TagMethod] = TAG_METHODS,
    weak_accepts: Accepts = np.equal,
) -> dict[str, Any]:
    """Return the stage's document. ``forgeries``: in all; the pad store's part of it is given by its blocks.

    ``methods`` and ``weak_accepts`` are the checks under test; a test plants weak ones to see that they are found.
    """
    default = methods[DEFAULT_METHOD.name]
    store = try_pad_store(default, pad_store_blocks, _SEED) if pad_store_blocks else ForgeryCount()
    each = max(0, -(-(forgeries - store.tried) // len(methods)))
    counts = {name: try_method(method, each, _SEED) for name, method in methods.items()}
    total = sum(counts.values(), store)
    trials = weak_tag_trials(weak_pairs, _SEED, weak_accepts)
    weak_tag_fits = all(trial.fits for trial in trials)
    share = _share()
    return {
        "stage": "authentication",
        "results": [_speed(method, counts[name]) for name, method in methods.items()],
        "forgeries_tried": total.tried,
        "forgeries_accepted": total.accepted,
        "honest_tried": total.honest_tried,
        "honest_refused": total.honest_refused,
        "pad_store": dataclasses.asdict(store),
        "weak_tag_fits": weak_tag_fits,
        "weak_tags": [dataclasses.asdict(t) | {"sigmas": t.sigmas, "fits": t.fits} for t in trials],
        "share_of_key": share["pad_set_bits"] / share["secret_key_bits"],
        "share": share,
        "failures": _failures(total, share, weak_tag_fits=weak_tag_fits),
    }


def _share() -> dict[str, Any]:
    """Return what one block of 1e6 sifted bits yields and spends, as a site plans it."""
    registration = plan_registration("bench", ("a", "b"), ("sae-a", "sae-b"), _DISTANCE_KM)
    steady = registration.find(registration.steady)
    assert steady is not None
    return {
        "distance_km": _DISTANCE_KM,
        "planned_sifted_bits": STEADY_BITS,
        "secret_key_bits": steady.secret_key_length,
        "pad_set_bits": PAD_SET_BITS,
    }


def _speed(method: TagMethod, count: ForgeryCount) -> dict[str, Any]:
    dice = np.random.default_rng(_SEED)
    key, large, small = dice.bytes(PAD_BYTES), dice.bytes(_LARGE_BYTES), dice.bytes(_SMALL_BYTES)
    seconds = best_seconds(lambda: method.tag(key, (large,)))
    bound = method.forgery_bound(_LARGE_BYTES)
    return row(
        method.name,
        8 * _LARGE_BYTES,
        seconds,
        mb_per_s=_LARGE_BYTES / seconds / 1e6,
        us_small=1e6 * best_seconds(lambda: method.tag(key, (small,))),
        small_bytes=_SMALL_BYTES,
        tag_bytes=method.tag_bytes,
        assurance=method.assurance,
        log2_forgery_bound=None if bound is None else math.log2(bound),
        forgeries_tried=count.tried,
        forgeries_accepted=count.accepted,
    )


def _failures(total: ForgeryCount, share: Mapping[str, Any], *, weak_tag_fits: bool) -> list[str]:
    found = []
    if total.accepted:
        found.append(f"{total.accepted} of {total.tried} forgeries were accepted")
    if total.honest_refused or not total.honest_tried:
        found.append(f"{total.honest_refused} of {total.honest_tried} true tags were refused")
    if not weak_tag_fits:
        found.append("forgeries of the weakened tags are not as frequent as expected: see weak_tags")
    if share["pad_set_bits"] >= _SHARE_MAX * share["secret_key_bits"]:
        found.append(f"authentication takes {share['pad_set_bits']} of {share['secret_key_bits']} key bits")
    return found
