"""The ``heliograph`` command."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from heliograph import __version__
from heliograph.cli.ending import ends_in_order
from heliograph.cli.lazy import commands_from

__all__ = ["app", "main"]

_COMMANDS: Final = {
    "bench": "heliograph.cli.bench:bench",
    "demo": "heliograph.cli.demo:demo",
    "distill": "heliograph.cli.distill:distill",
    "keyrate": "heliograph.cli.keyrate:keyrate",
    "kme-chaos": "heliograph.cli.kme_chaos:kme_chaos",
    "agent": "heliograph.cli.agent:app",
    "kme": "heliograph.cli.kme:app",
    "network": "heliograph.cli.network:app",
    "pki": "heliograph.cli.pki:app",
    "sae": "heliograph.cli.sae:app",
    "site": "heliograph.cli.site:app",
    "audit": "heliograph.cli.audit:app",
    "store": "heliograph.cli.store:app",
}

app = typer.Typer(
    cls=commands_from(_COMMANDS),
    name="heliograph",
    help="Quantum key distribution from photons to packets: two sites, secret keys, encrypted traffic.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        # Imported here, so that every other command starts without numpy.
        from heliograph.kernels.native import KERNELS  # noqa: PLC0415
        from heliograph.kernels.product import MULTIPLIER  # noqa: PLC0415

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
    with ends_in_order():
        app()


if __name__ == "__main__":
    main()
