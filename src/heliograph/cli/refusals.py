"""How every command ends when it cannot do its work: one line, exit code 1, and with ``--json`` a document too."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from heliograph.errors import HeliographError
from heliograph.site.bugs import place

__all__ = ["refusals"]

_REMEDIES: Final = {
    errno.ENOENT: "correct the path, or make it first",
    errno.ENOTDIR: "correct the path",
    errno.EISDIR: "name a file in it",
    errno.EEXIST: "name another, or move it away",
    errno.EACCES: "run this as a user who may, or name another path",
    errno.EPERM: "run this as a user who may",
    errno.ENAMETOOLONG: "take a shorter one",
    errno.EROFS: "name a place that can be written, or mount it so",
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or raise the quota",
    errno.EADDRINUSE: "name another port, or stop who listens there",
    errno.EADDRNOTAVAIL: "name an address of this machine",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def _remedy(why: OSError) -> str:
    """Return what a person can do about what no command foresaw."""
    return _REMEDIES.get(why.errno or 0, "check the path and the machine, then try again")


@contextmanager
def refusals(*, as_json: bool = False) -> Iterator[None]:
    """Turn a HeliographError into its exit; anything else is a bug and says so in one line as well."""
    try:
        yield
    except HeliographError as why:
        code, message = type(why).__name__, str(why)
    except OSError as why:
        code, message = "OSError", f"{why.filename or 'the system'}: {why.strerror or why}; {_remedy(why)}"
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
