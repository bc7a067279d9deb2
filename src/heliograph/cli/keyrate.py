"""``heliograph keyrate``: the finite-key length that counts earn under a published theorem."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError

__all__ = ["keyrate"]

BYTES_MAX: Final = 1 << 20  # a question is a few hundred bytes


def keyrate(
    counts: Annotated[Path, typer.Argument(metavar="COUNTS.json", help="The counts; - reads standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON document.")] = False,
) -> None:
    """Compute the length of the secret key that counts earn. A length of 0 is an answer, not a failure."""
    with refusals(as_json=as_json):
        # Imported here, so that `heliograph --help` is quick.
        from heliograph.kme.strict_json import MalformedDocument, read_document  # noqa: PLC0415
        from heliograph.postprocessing.secrecy.counts import read_question  # noqa: PLC0415
        from heliograph.postprocessing.secrecy.evaluate import evaluate  # noqa: PLC0415

        name = "standard input" if str(counts) == "-" else str(counts)
        try:
            report = asdict(evaluate(read_question(read_document(_read(counts)))))
        except (MalformedDocument, ConfigurationError) as why:
            raise ConfigurationError(f"{name}: {why}") from None
        print(json.dumps(report, allow_nan=False) if as_json else _render(report))


def _read(path: Path) -> bytes:
    if str(path) == "-":
        document = sys.stdin.buffer.read(BYTES_MAX + 1)
    else:
        with path.open("rb") as file:
            document = file.read(BYTES_MAX + 1)
    if len(document) > BYTES_MAX:
        raise ConfigurationError("larger than 1 MiB; a question of counts is a few hundred bytes")
    return document


def _render(report: dict[str, object]) -> str:
    terms, assumptions = report["terms"], report["assumptions"]
    assert isinstance(terms, dict)
    assert isinstance(assumptions, tuple)
    lines = [
        f"secret key  {report['secret_key_length']} bits (before floor and clamp {report['raw_length']:.3f})",
        f"theorem     {report['theorem']}, {report['bound']} bounds",
        f"policy      {report['policy']}, label {report['label']}",
        f"charged     {report['leak_ec_bits']} bits disclosed",
        f"epsilons    eps_sec {report['eps_sec']:g}, eps_cor {report['eps_cor']:g}",
        "terms",
        *(f"  {name:<18} {value:.8g}" for name, value in terms.items()),
        "assumed",
        *(f"  {line}" for line in assumptions),
    ]
    return "\n".join(lines)
