"""``heliograph kme``: processes that hand out a site's keys from its delivery server."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from heliograph.cli.logs import configure_logs
from heliograph.cli.once import Once
from heliograph.cli.process import harden_process, shorten_pauses
from heliograph.cli.refusals import refusals
from heliograph.ports import Vault
from heliograph.site.config import SiteConfig, read_site
from heliograph.site.kek import open_kek

__all__ = ["app"]

app = typer.Typer(help="Hand out a site's keys from its delivery server.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Hand out a site's keys from its delivery server."""


@app.command(cls=Once)
def serve(
    site: Annotated[Path, typer.Argument(metavar="SITE.toml", help="The site's configuration, with [delivery].")],
    front_end: Annotated[str, typer.Option("--front-end", help="Which of [delivery] front_ends this process is.")],
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")] = "info",
) -> None:
    """Run one front end until SIGTERM; SIGHUP reads certificates anew. A line of JSON says when it listens."""
    with refusals():
        harden_process()
        configure_logs(log_level)
        config = read_site(site)
        kek = open_kek(config)
        shorten_pauses()
        asyncio.run(_run(config, kek, front_end))


async def _run(config: SiteConfig, kek: Vault, front_end: str) -> None:
    stop, renew = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, renew.set)

    async def ready() -> None:
        print(json.dumps({"ready": True, "front_end": front_end}), flush=True)

    # Imported here, so that `heliograph --help` is quick.
    from heliograph.site.front_end import run_front_end  # noqa: PLC0415

    await run_front_end(config, kek, front_end, ready, stop, renew)
