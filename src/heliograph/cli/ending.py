"""How a command ends that is told to: SIGTERM and a closed terminal end it as Ctrl-C does, in order."""

from __future__ import annotations

import signal
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
    servers do, puts them in place of these. A hang-up that is ignored from outside (nohup) stays ignored. Ctrl-C does
    not, not even in the background of a script, as for servers.
    """
    told: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        told.append(number)
        signal.raise_signal(signal.SIGINT)  # whatever handles it: Python, or an event loop in one of its ways

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # In the background of a script. An event loop takes Ctrl-C in order only where Python's own handler stands.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    try:
        yield
    finally:
        if told:
            raise SystemExit(128 + told[0])
