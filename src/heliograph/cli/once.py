"""Commands that refuse an option given twice: of two files only the last would count, and nobody would say so."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typer.core import TyperCommand

__all__ = ["Once"]


class Once(TyperCommand):
    """A command whose options are given at most once, flags aside."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  - typer's own type
        """Parse as every command does. Ends with the usage error's code for an option that comes again."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        valued = [p for p in order if p.param_type_name == "option" and not p.multiple and not p.is_flag]  # type: ignore[attr-defined]
        for option, times in Counter(valued).items():
            if times > 1:
                ctx.fail(f"{option.opts[0]}: given {times} times; give it once")
        return super().parse_args(ctx, args)
