"""``heliograph keyrate``: the finite-key length that counts earn, or that a link would, with the best light for it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from heliograph.cli.refusals import refusals
from heliograph.errors import ConfigurationError

__all__ = ["keyrate"]

BYTES_MAX: Final = 1 << 20  # a question is a few hundred bytes


def keyrate(
    counts: Annotated[
        Path | None, typer.Argument(metavar="[COUNTS.json]", help="The counts; - reads standard input.")
    ] = None,
    link: Annotated[
        Path | None, typer.Option("--link", metavar="LINK.toml", help="A link model instead; - reads standard input.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON document.")] = False,
) -> None:
    """Compute the secret key that counts earn, or a link with its best light. A length of 0 is an answer."""
    if (counts is None) == (link is None):
        raise typer.BadParameter("give either COUNTS.json or --link LINK.toml")
    with refusals(as_json=as_json):
        asked = link if counts is None else counts
        assert asked is not None
        name = "standard input" if str(asked) == "-" else str(asked)
        try:
            report = _of_counts(_read(asked)) if link is None else _of_link(_read(asked))
        except ConfigurationError as why:
            raise ConfigurationError(f"{name}: {why}") from None
        except OSError as why:
            what = "LINK.toml" if counts is None else "COUNTS.json"
            raise ConfigurationError(f"{name}: {why.strerror}; name a {what} that can be read, or - alone") from None
        if as_json:
            print(json.dumps(report, allow_nan=False))
        else:
            print(_render(report) if link is None else _render_link(report))


def _of_counts(document: bytes) -> dict[str, Any]:
    # Imported here and below, so that `heliograph --help` is quick.
    from heliograph.kme.strict_json import MalformedDocument, read_document  # noqa: PLC0415
    from heliograph.postprocessing.secrecy.counts import read_question  # noqa: PLC0415
    from heliograph.postprocessing.secrecy.evaluate import evaluate  # noqa: PLC0415

    try:
        return asdict(evaluate(read_question(read_document(document))))
    except MalformedDocument as why:
        raise ConfigurationError(
            f"{why}; docs/how-to/keyrate.md shows one. A TOML file of a link needs --link"
        ) from None


def _of_link(document: bytes) -> dict[str, Any]:
    """Return the report: of one place as one flat document, of a curve with a list of places."""
    import tomllib  # noqa: PLC0415

    from heliograph.postprocessing.secrecy.link_question import read_link_question  # noqa: PLC0415
    from heliograph.postprocessing.secrecy.link_report import answer  # noqa: PLC0415

    try:
        parsed = tomllib.loads(document.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, RecursionError) as why:
        line = str(why).splitlines()[0][:120] if str(why) else type(why).__name__
        raise ConfigurationError(f"not a TOML document: {line}; docs/how-to/keyrate.md shows one") from None
    question = read_link_question(parsed)
    report = asdict(answer(question))
    places = report.pop("places")
    return {**report, "curve": places} if question.is_curve else {**report, **places[0]}


def _read(path: Path) -> bytes:
    if str(path) == "-":
        document = sys.stdin.buffer.read(BYTES_MAX + 1)
    else:
        with path.open("rb") as file:
            document = file.read(BYTES_MAX + 1)
    if len(document) > BYTES_MAX:
        raise ConfigurationError("larger than 1 MiB; a question is a few hundred bytes")
    return document


def _render(report: dict[str, Any]) -> str:
    lines = [
        f"secret key  {report['secret_key_length']} bits (before floor and clamp {report['raw_length']:.3f})",
        f"theorem     {report['theorem']}, {report['bound']} bounds",
        f"policy      {report['policy']}, label {report['label']}",
        f"charged     {report['leak_ec_bits']} bits disclosed",
        f"epsilons    eps_sec {report['eps_sec']:g}, eps_cor {report['eps_cor']:g}",
        "terms",
        *_figures(report["terms"]),
        "assumed",
        *(f"  {line}" for line in report["assumptions"]),
    ]
    return "\n".join(lines)


def _figures(figures: dict[str, float]) -> list[str]:
    width = max(18, *map(len, figures))
    return [f"  {name:<{width}} {value:.8g}" for name, value in figures.items()]


def _render_link(report: dict[str, Any]) -> str:
    (size,) = (f"{amount} {kind}" for kind, amount in report["block"].items())
    common = [
        f"theorem     {report['theorem']}",
        f"policy      {report['policy']}, label {report['label']}",
        f"epsilons    eps_sec {report['eps_sec']:g}, eps_cor {report['eps_cor']:g}",
        f"block       {size}",
        "link",
        *_figures(report["link"]),
        "margin",
        *_figures(report["margin"]),
    ]
    assumed = ["assumed", *(f"  {line}" for line in report["assumptions"])]
    if "curve" in report:
        return "\n".join([*_table(report["curve"]), *common, *assumed])
    where = f"{report['loss_db']:g} dB of fibre"
    if report["distance_km"] is not None:
        where = f"{report['distance_km']:g} km, {where}"
    if report["light"] is None:
        return "\n".join([f"secret key  none: no light gives a key at {where}", *common, *assumed])
    light = report["light"]
    return "\n".join(
        [
            f"secret key  {report['secret_key_length']} bits a block at {where}",
            f"rate        {report['secret_key_rate_bps']:.6g} bit/s, {report['secret_key_per_pulse']:.6g} bit/pulse",
            f"pulses      {report['pulses']} a block, {report['block_s']:.4g} s",
            f"intensities {_list(light['intensities'])}",
            f"shares      {_list(light['probabilities'])}, Z basis {light['z_probability']:.4g}",
            f"sifted      {report['sifted_bits']} bits, key basis {report['key_bits']}, QBER {report['qber']:.2%}",
            f"charged     {report['leak_ec_bits']} bits disclosed",
            "terms",
            *_figures(report["terms"]),
            *common,
            *assumed,
        ]
    )


def _list(numbers: list[float]) -> str:
    return " ".join(f"{x:.4g}" for x in numbers)


def _table(curve: list[dict[str, Any]]) -> list[str]:
    """Return a line for each place; a dash where there is no key."""
    head = f"{'km':>7} {'dB':>6} {'secret bit/s':>12} {'bits/block':>11} {'block s':>9} {'QBER':>6}  "
    lines = [f"{head}{'intensities':<24} {'shares':<24} Z basis"]
    for place in curve:
        km = "-" if place["distance_km"] is None else f"{place['distance_km']:g}"
        line = f"{km:>7} {place['loss_db']:>6.4g} "
        if place["light"] is None:
            lines.append(f"{line}{'-':>12} {0:>11}")
            continue
        light = place["light"]
        lines.append(
            f"{line}{place['secret_key_rate_bps']:>12.4g} {place['secret_key_length']:>11} {place['block_s']:>9.3g} "
            f"{place['qber']:>6.2%}  {_list(light['intensities']):<24} {_list(light['probabilities']):<24} "
            f"{light['z_probability']:.4g}"
        )
    return lines
