"""``python -m heliograph.lab.child MODULE ARGUMENT...``: run a program for as long as its parent lives.

The parent holds the other end of this process's standard input and never writes to it. When the parent is gone,
however it went, the input ends and the program gets SIGTERM, so that a rehearsal leaves no process behind.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

__all__ = ["main"]


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """Run the module named first as if by ``python -m``, with the arguments after it."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
