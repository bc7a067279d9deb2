"""The option that names one link of a site."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["LinkName"]

LinkName = Annotated[
    str | None,
    typer.Option("--link", help="The link, by the name in its registration; needed where a site has several."),
]
