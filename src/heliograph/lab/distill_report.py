"""What ``heliograph distill`` reports: the figures that both sides came to, and what they take for granted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.recorded import PhaseSample, Requirements, ValueCounts
from heliograph.protocol.distillation import charging_rule
from heliograph.protocol.registration import Reconciliation

__all__ = ["block_report"]


def block_report(
    blocks: Sequence[dict[str, Any]], requirements: Requirements, reconciliation: Reconciliation, sigma: float
) -> dict[str, Any]:
    """Return the figures both sides agreed on, of the blocks that gave a key: sums, and the worst of what is no sum.

    ``requirements``: of all blocks together; ``sigma``: the bias of the whole recording, in standard deviations.
    """
    counts = ValueCounts(**_sums([block["counts"] for block in blocks]))
    disclosed, terms = (_sums([block[name] for block in blocks]) for name in ("disclosed", "terms"))
    terms["phase_error_upper"] = max(block["terms"]["phase_error_upper"] for block in blocks)
    terms["bias_sigma"] = sigma
    n, qber = counts.total, counts.error_rate
    floor = n * binary_entropy(qber)
    ones_alice, ones_bob = counts.ones_of_each_side
    sample = requirements.sample
    return {
        "sifted_bits": n,
        "qber": qber,
        "error_given_0": counts.error_rate_given(0),
        "error_given_1": counts.error_rate_given(1),
        "bias": ones_alice / n - 0.5,
        "bias_bob": ones_bob / n - 0.5,
        "bias_sigma": terms["bias_sigma"],
        "bias_deducted_bits": terms["bias_deducted_bits"],
        "disclosed_bits": terms["disclosed_bits"],
        "parities_a": disclosed["parities_a"],
        "parities_b": disclosed["parities_b"],
        "verification_bits": disclosed["verification"],
        "reconciliation": reconciliation,
        "two_way_rule": charging_rule(reconciliation),
        "efficiency": disclosed["parities_a"] / floor if floor > 0 else None,
        "verified": True,
        "eps_cor": requirements.eps_cor,
        "eps_sec": requirements.eps_sec,
        "phase_error_upper": terms["phase_error_upper"],
        "secret_key_bits": terms["secret_key_length"],
        "claim": "indicative" if sample else "conditional",
        "policy": "indicative",
        "theorem": "tomamichel2012",
        "assumptions": _assumptions(terms, sample, reconciliation),
        # The longest of them: what a long line costs the last block.
        "rounds": max(block["rounds"] for block in blocks),
    }


def _sums(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: sum(record[name] for record in records) for name in records[0]}


def _assumptions(terms: dict[str, Any], sample: PhaseSample | None, reconciliation: Reconciliation) -> list[str]:
    """Return what the length takes for granted, in the order of security.md 10."""
    phase = (
        "phase error taken as the upper-bounded larger one of the error rates given 0 and given 1, not measured"
        if sample is None
        else f"the test-basis counts, {sample.errors} errors in {sample.bits} bits, are a random sample of the same run"
    )
    bias = terms["bias_deducted_bits"]
    return [
        "single photons, or BBM92",
        phase,
        "basis-independent detection"
        + (f", which a bias of {terms['bias_sigma']:.1f} sigma contradicts: {bias} bits were deducted" if bias else ""),
        "fixed run length; the length of the key follows from observed counts (indicative)",
        "the input was never seen by others",
        "both processes on one host, channel unauthenticated",
        f"two-way rule {charging_rule(reconciliation)}: parities of both directions are charged",
        "the operating system's random generator",
    ]
