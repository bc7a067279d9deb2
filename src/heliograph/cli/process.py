"""What a long-running process sets for itself before it opens a secret."""

from __future__ import annotations

import resource

__all__ = ["harden_process"]


def harden_process() -> None:
    """Never write a core dump, which would hold keys; use as many open files as the system grants."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
