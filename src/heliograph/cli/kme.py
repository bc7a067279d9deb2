"""``heliograph kme``: processes that hand out a site's keys from its delivery server."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
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
