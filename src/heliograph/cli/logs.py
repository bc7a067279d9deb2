"""Logs go to stderr, one JSON document a line; standard output belongs to reports."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TextIO

import structlog

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


def configure_logs(level: str) -> None:
    """Set up structlog and the standard library's loggers. ``level``: debug, info, warning or error."""
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
