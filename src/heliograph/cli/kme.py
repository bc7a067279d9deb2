"""``heliograph kme``: processes that hand out a site's keys, and two key managers to test against."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from heliograph.cli.logs import configure_logs
from heliograph.cli.once import Once
from heliograph.cli.process import harden_process, shorten_pauses
from heliograph.cli.refusals import refusals
from heliograph.ports import Vault
from heliograph.site.config import SiteConfig, read_site
from heliograph.site.kek import open_kek

if TYPE_CHECKING:
    from heliograph.lab.kme_peer import KmePeer

__all__ = ["app"]

app = typer.Typer(help="Hand out keys from a delivery server, or rehearse with dealt ones.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Hand out keys from a delivery server, or rehearse with dealt ones."""


@app.command(cls=Once)
def rehearse(
    directory: Annotated[Path, typer.Argument(help="A new directory, for both sites' certificates and stores.")],
    first_port: Annotated[int, typer.Option(help="Site A listens from there on, site B ten further.")] = 8443,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")] = "warning",
) -> None:
    """Run two key managers with dealt keys until Ctrl-C, to test a client of ETSI 014, 004 or SKIP against."""
    with refusals():
        # Imported here, so that `heliograph --help` is quick.
        from heliograph.lab.kme_peer import KmePeer  # noqa: PLC0415

        harden_process()
        configure_logs(log_level)
        peer = KmePeer(directory, first_port)
        peer.prepare()
        asyncio.run(_rehearse(peer))


async def _rehearse(peer: KmePeer) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await peer.run(lambda: print(f"{peer.describe()}\nready; Ctrl-C ends both.", flush=True), stop)


@app.command(cls=Once)
def serve(
    site: Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration, with \\[delivery].")],
    front_end: Annotated[str, typer.Option("--front-end", help="Which of \\[delivery] front_ends this process is.")],
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="What to log, unless the configuration says it. Default: info."),
    ] = None,
) -> None:
    """Run one front end until SIGTERM; SIGHUP reloads SITE.toml. A line of JSON says when it listens."""
    with refusals():
        harden_process()
        follow_level = configure_logs(log_level)
        config = read_site(site)
        follow_level(config.file.log_level)
        kek = open_kek(config)
        shorten_pauses()
        asyncio.run(_run(config, kek, front_end, follow_level))


async def _run(config: SiteConfig, kek: Vault, front_end: str, follow_level: Callable[[str | None], None]) -> None:
    stop, hung_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)

    async def ready() -> None:
        print(json.dumps({"ready": True, "front_end": front_end}), flush=True)

    # Imported here, so that `heliograph --help` is quick.
    from heliograph.site.front_end import run_front_end  # noqa: PLC0415

    await run_front_end(config, kek, front_end, ready, stop, hung_up, follow_level)
