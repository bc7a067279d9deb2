"""Logs go to stderr, one JSON document a line; standard output belongs to reports."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

__all__ = ["configure_logs"]


class _Unfailing:
    """A stream whose failure stops nothing: a full disk under the log must not stop the link or the key manager."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let an optional import of ``module`` fail meanwhile; nothing changes if it is there already.

    structlog takes rich for coloured tracebacks, which no log of ours has: a quarter of a second of a processor at each
    start of a site.
    """
    here = module not in sys.modules
    if here:
        sys.modules[module] = None  # type: ignore[assignment]  # what Python's own import system offers for this
    try:
        yield
    finally:
        if here:
            del sys.modules[module]


def configure_logs(level: str) -> None:
    """Set up structlog and the standard library's loggers. ``level``: debug, info, warning or error."""
    with _without("rich"):
        import structlog  # noqa: PLC0415  - only what runs on needs it

    number = logging.getLevelNamesMapping()[level.upper()]
    stream = _Unfailing(sys.stderr)
    logging.basicConfig(stream=stream, level=number, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),  # type: ignore[arg-type]  # it only writes and flushes
        cache_logger_on_first_use=True,
    )
