"""Logs go to stderr, one JSON document a line; standard output belongs to reports."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = ["configure_logs"]

_LEVELS = logging.getLevelNamesMapping()
# One list for good: loggers remember it, and so follow whatever is set up later in the same process.
_processors: list[Any] = []


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


def configure_logs(level: str | None) -> Callable[[str | None], None]:
    """Set up structlog and the standard library's loggers. ``level``: debug, info, warning or error; None for info.

    Returns what changes the level to that of a configuration file, or back if the file has none.
    """
    with _without("rich"):
        import structlog  # noqa: PLC0415  - only what runs on needs it

    stream, root = _Unfailing(sys.stderr), logging.getLogger()

    def by_level(_: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Drop what is below the level of the moment: loggers are made once, the level may change."""
        if _LEVELS.get(method.upper(), logging.ERROR) < root.level:
            raise structlog.DropEvent
        return event

    logging.basicConfig(stream=stream, format="%(levelname)s %(name)s %(message)s")

    def follow(entry: str | None) -> None:
        root.setLevel(_LEVELS[(entry or level or "info").upper()])

    follow(level)
    _processors[:] = [
        by_level,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.PrintLoggerFactory(stream),  # type: ignore[arg-type]  # it only writes and flushes
        cache_logger_on_first_use=True,
    )
    return follow
