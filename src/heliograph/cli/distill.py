"""``heliograph distill``: two recorded sifted keys to a secret key, the two sides as two processes, and a report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from heliograph.cli.refusals import refusals

__all__ = ["distill"]


class Hash(StrEnum):
    """The families of ``postprocessing.amplification``."""

    MODIFIED_MULTIPLY_SHIFT = "modified-multiply-shift"
    TOEPLITZ = "toeplitz"


_FORMS = "Text of 0 and 1, .npy, or packed .bin."


def distill(
    alice: Annotated[Path, typer.Argument(metavar="ALICE", help=f"One side's sifted key. {_FORMS}")],
    bob: Annotated[Path, typer.Argument(metavar="BOB", help="The other side's, of the same run.")],
    eps_sec: Annotated[float, typer.Option(help="Failure probability of secrecy.")] = 1e-15,
    eps_cor: Annotated[float, typer.Option(help="Failure probability of correctness.")] = 1e-15,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse bits that are biased beyond 4 sigma, instead of deducting.")
    ] = False,
    test_counts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Test-basis counts of the same run, as JSON.")
    ] = None,
    out_alice: Annotated[Path | None, typer.Option(metavar="FILE", help="Write ALICE's secret key here.")] = None,
    out_bob: Annotated[Path | None, typer.Option(metavar="FILE", help="Write BOB's secret key here.")] = None,
    reconciliation: Annotated[
        Literal["cascade", "ldpc"], typer.Option(help="Two ways by Cascade, or one way by LDPC codes.")
    ] = "cascade",
    hash_: Annotated[
        Hash, typer.Option("--hash", help="The family privacy amplification takes its hash from.")
    ] = Hash.MODIFIED_MULTIPLY_SHIFT,
    round_trip_ms: Annotated[
        float, typer.Option(min=0, max=10_000, help="Delay what the sides say, as a long line would.")
    ] = 0.0,
    block_bits: Annotated[
        int | None, typer.Option(metavar="BITS", help="Cut both into blocks of at least so many bits, a key from each.")
    ] = None,
    in_flight: Annotated[int, typer.Option(min=1, max=1000, help="How many blocks at once.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON document.")] = False,
) -> None:
    """Reconcile, verify and amplify two recorded sifted keys; the report says on what the length is conditional."""
    with refusals(as_json=as_json):
        # Imported here, so that `heliograph --help` is quick.
        from heliograph.lab.distill import DistillOptions, run_distill  # noqa: PLC0415

        line_s = round_trip_ms / 1000
        options = DistillOptions(
            alice,
            bob,
            eps_sec,
            eps_cor,
            strict,
            test_counts,
            out_alice,
            out_bob,
            reconciliation,
            hash_.value,
            line_s,
            block_bits,
            in_flight,
        )
        report = asyncio.run(run_distill(options))
        print(json.dumps(report) if as_json else _render(report))


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.3%}"


def _render(report: Mapping[str, Any]) -> str:
    """Return the report as a few lines of plain text."""
    efficiency = "-" if report["efficiency"] is None else f"{report['efficiency']:.4f}"
    bias, bias_bob, disclosed = report["bias"], report["bias_bob"], report["disclosed_bits"]
    same = "the same on both sides" if report["keys_equal"] else "NOT THE SAME"
    phase = _percent(report["phase_error_upper"])
    rate = f"{report['sifted_bps']:,.0f}"
    blocks, lost = report["blocks"], report["blocks_discarded"]
    cut = [f"BLOCKS    {blocks:,}, {lost:,} without a key; {report['in_flight']} at once"] if blocks > 1 else []
    lines = [
        f"SIFTED    {report['sifted_bits']:,} bits; error rate {_percent(report['qber'])}",
        f"          {_percent(report['error_given_0'])} given 0, {_percent(report['error_given_1'])} given 1",
        f"          bias {bias:+.5f}, the other side's {bias_bob:+.5f} ({report['bias_sigma']:.1f} sigma)",
        f"PUBLIC    {disclosed:,} bits disclosed, {report['reconciliation']}, rule {report['two_way_rule']}",
        f"          efficiency {efficiency} (one direction), phase error at most {phase}",
        f"KEY       {report['secret_key_bits']:,} secret bits, {same}",
        f"          eps_sec {report['eps_sec']:g}, eps_cor {report['eps_cor']:g}; {report['theorem']}",
        *cut,
        f"TIME      {report['elapsed_s']:.1f} s; exchange {report['exchange_s']:.2f} s, {rate} sifted bits per second",
        f"          reconciliation {report['reconciliation_s']:.2f} s in {report['rounds']:,} rounds",
        f"CLAIM     {report['claim']}, on",
        *(f"          - {text}" for text in report["assumptions"]),
    ]
    return "\n".join(lines)
