"""Threads for the jobs of blocks: where a link's machines, and those of recorded keys, get their work done.

The kernels and the libraries release the interpreter's lock, so that as many jobs run at once as there are processors.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from heliograph.protocol.actions import Compute

__all__ = ["Workers"]


class Workers:
    """A pool of threads, one for each processor that this process may use."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self.threads, "compute")

    async def run(self, job: Compute) -> object:
        """Return what the job returns. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, job.function, *job.arguments)

    def close(self) -> None:
        """Take no more jobs; those that wait never begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)
