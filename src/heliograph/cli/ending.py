"""How a command ends that is told to: SIGTERM and a closed terminal end it as Ctrl-C does, in order."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["ends_in_order"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Within, these signals do what Ctrl-C would: whatever was begun, children and temporary files, is taken back.

    The exit code is then 128 and the signal's number, as shells say it. A command that has handlers of its own, as
    servers do, puts them in place of these; a signal that was ignored from outside (nohup) stays ignored.
    """
    told: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        told.append(number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
            _interrupt()
        else:
            signal.raise_signal(signal.SIGINT)  # whatever handles it: Python, or an event loop in one of its ways

    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    try:
        yield
    finally:
        if told:
            raise SystemExit(128 + told[0])


def _interrupt() -> None:
    """Raise KeyboardInterrupt, in a running event loop between its tasks: one that it hit would log a traceback."""
    asyncio = sys.modules.get("asyncio")  # not loaded for this: a command starts with what it needs
    try:
        loop = asyncio.get_running_loop() if asyncio else None
    except RuntimeError:
        loop = None
    if loop is None:
        raise KeyboardInterrupt
    loop.call_soon_threadsafe(signal.default_int_handler, signal.SIGINT, None)
