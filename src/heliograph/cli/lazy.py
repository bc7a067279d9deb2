"""Commands that are imported when they are asked for: to load all of them takes more than a second of a processor."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from heliograph.cli.once import Once

__all__ = ["commands_from"]


class _Lazy(TyperGroup):
    """A group that knows where its commands are; ``--help`` loads all of them, a command only itself."""

    places: Mapping[str, str]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  - typer's own type
        """Return the names of all commands, loaded or not."""
        return [*super().list_commands(ctx), *(name for name in self.places if name not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401  - typer's own types
        """Return a command, or None for a name that is none: what was meant is looked for among all of them."""
        for name in [cmd_name] if cmd_name in self.places else self.places:
            if name not in self.commands:
                self.add_command(_load(name, self.places[name]), name)
        return super().get_command(ctx, cmd_name)


def _load(name: str, place: str) -> Any:  # noqa: ANN401  - typer's own type
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    above = typer.Typer()
    if isinstance(found, typer.Typer):
        above.add_typer(found, name=name)
    else:
        above.command(name, cls=Once)(found)
    return typer.main.get_group(above).commands[name]


def commands_from(places: Mapping[str, str]) -> type[TyperGroup]:
    """Return the class of a group with the commands of ``places``: name to "module:attribute".

    There stands a function, which becomes a command, or a Typer, which becomes a group.
    """
    return type("Lazy", (_Lazy,), {"places": places})
