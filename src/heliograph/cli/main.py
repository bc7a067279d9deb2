"""The ``heliograph`` command."""

from __future__ import annotations

from typing import Annotated

import typer

from heliograph import __version__
from heliograph.cli import agent, audit, bench, demo, distill, keyrate, kme, kme_chaos, network, pki, sae, site, store
from heliograph.cli.once import Once
from heliograph.kernels.native import KERNELS
from heliograph.kernels.product import MULTIPLIER

__all__ = ["app", "main"]

app = typer.Typer(
    name="heliograph",
    help="Quantum key distribution from photons to packets: two sites, secret keys, encrypted traffic.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("bench", cls=Once)(bench.bench)
app.command("demo", cls=Once)(demo.demo)
app.command("distill", cls=Once)(distill.distill)
app.command("keyrate", cls=Once)(keyrate.keyrate)
app.add_typer(agent.app, name="agent")
app.add_typer(kme.app, name="kme")
app.command("kme-chaos", cls=Once)(kme_chaos.kme_chaos)
app.add_typer(network.app, name="network")
app.add_typer(pki.app, name="pki")
app.add_typer(sae.app, name="sae")
app.add_typer(site.app, name="site")
app.add_typer(audit.app, name="audit")
app.add_typer(store.app, name="store")


def _version(asked: bool) -> None:
    if asked:
        print(f"heliograph {__version__} (kernels: {KERNELS}; product: {MULTIPLIER})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Quantum key distribution from photons to packets."""


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
