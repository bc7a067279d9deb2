"""How every command ends when it cannot do its work: one line, exit code 1, and with ``--json`` a document too."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from heliograph.errors import HeliographError
from heliograph.site.bugs import place

__all__ = ["refusals"]


@contextmanager
def refusals(*, as_json: bool = False) -> Iterator[None]:
    """Turn a HeliographError into its exit; anything else is a bug and says so in one line as well."""
    try:
        yield
    except HeliographError as why:
        code, message = type(why).__name__, str(why)
    except OSError as why:
        code, message = "OSError", f"{why.filename or 'the system'}: {why.strerror or why}"
    except (typer.Exit, typer.Abort):
        raise
    except Exception as why:  # noqa: BLE001  - its text might quote key material: kind and place are enough
        code, message = "InternalError", f"internal error ({type(why).__name__} at {place(why)}): please report it"
    else:
        return
    print(f"heliograph: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": {"code": code, "message": message}}))
    raise typer.Exit(1)
