"""What a process that holds keys sets for itself before it opens a secret."""

from __future__ import annotations

import ctypes
import gc
import resource

__all__ = ["harden_process", "shorten_pauses"]

_PR_SET_DUMPABLE = 4  # prctl(2), linux/prctl.h


def harden_process() -> None:
    """Never leave a core dump, which would hold keys; use as many open files as the system grants.

    A size limit of 0 does not bind a dump that the kernel pipes to a program; not being dumpable does.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def shorten_pauses() -> None:
    """Leave what stands now out of Python's search for garbage: every imported module stays until the end.

    Looking through all of it takes tens of milliseconds now and then, in which a server answers nobody (ADR 0046).
    """
    gc.collect()
    gc.freeze()
