"""``heliograph demo``: two sites and a fibre on this machine, a payload through the tunnel, a report."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from heliograph.cli.refusals import refusals

__all__ = ["demo"]


def demo(
    payload: Annotated[Path | None, typer.Argument(help="The file to send; without it one is made.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Wall time of traffic: send again until it is over. Default: send once.")
    ] = None,
    distance_km: Annotated[float, typer.Option(help="Length of the simulated fibre.")] = 25.0,
    decoys: Annotated[int, typer.Option(help="Decoy intensities: 1 or 2; names the theorem too.")] = 1,
    bootstrap: Annotated[
        Literal["psk", "pki", "openpgp", "psk+pki", "psk+openpgp"], typer.Option(help="What trust starts from.")
    ] = "psk",
    seed: Annotated[int | None, typer.Option(help="Seeds the fibre and a made payload; sites draw fresh.")] = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="No page yet: changes nothing.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Leave both sites running until Ctrl-C.")] = False,
    tunnel: Annotated[
        Literal["built-in", "tls-psk", "tun", "strongswan", "wireguard"],
        typer.Option(help="What carries the traffic; the last three need root, and make network namespaces."),
    ] = "built-in",
    keep: Annotated[Path | None, typer.Option(help="Keep sites and recordings in this new directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON document.")] = False,
) -> None:
    """Send a payload between two sites, encrypted under quantum keys; exit 0 only if all the report says is true."""
    del no_dashboard
    with refusals(as_json=as_json):
        # Imported here, so that `heliograph --help` is quick.
        from heliograph.lab.demo import DemoOptions, run_demo  # noqa: PLC0415

        cipher = "tls-psk" if tunnel == "tls-psk" else "aes-256-gcm"
        options = DemoOptions(
            payload, seconds, distance_km, bootstrap, seed, keep, stay, quiet=as_json, decoys=decoys, cipher=cipher
        )
        if tunnel in ("built-in", "tls-psk"):
            from heliograph.lab.report import failures, render  # noqa: PLC0415

            report = asyncio.run(run_demo(options))
        else:
            from heliograph.lab.tunnel_demo import failures, render, run_tunnel_demo  # noqa: PLC0415

            report = asyncio.run(run_tunnel_demo(tunnel, options))
        print(json.dumps(report) if as_json else render(report))
        for failure in failures(report):
            print(f"heliograph: {failure}", file=sys.stderr)
        if failures(report):
            raise typer.Exit(1)
