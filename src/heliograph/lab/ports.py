"""Ports for rehearsals and tests that nobody else on this machine is about to take."""

from __future__ import annotations

import atexit
import os
import socket
from contextlib import ExitStack, suppress
from typing import Final

from heliograph.vault.randomness import SystemRandomness

__all__ = ["free_ports"]

_HOST: Final = "127.0.0.1"
# Our choices: below what systems give to outgoing connections, so that none takes a port before it is listened on, or
# while a site that was stopped is started again; and a slice for each process.
_FIRST_PORT: Final = 10_240
_PORTS_EACH: Final = 352
_SLICES: Final = 64


class _Slice:
    """The ports of this process. Its claim is an abstract name of Linux, which vanishes with the process."""

    def __init__(self) -> None:
        self.process: Final = os.getpid()
        self.given: Final = set[int]()
        self._claim: Final = socket.socket(socket.AF_UNIX)
        atexit.register(self._claim.close)
        self.first = _FIRST_PORT + self.process % _SLICES * _PORTS_EACH  # if every slice is claimed: seldom the same
        for number in range(self.process, self.process + _SLICES):
            with suppress(OSError):
                self._claim.bind(f"\0heliograph-ports-{number % _SLICES}")
                self.first = _FIRST_PORT + number % _SLICES * _PORTS_EACH
                break


_own: _Slice | None = None


def free_ports(count: int) -> list[int]:
    """Return TCP ports of the loopback interface that nobody uses now, and that this process was not given before.

    A port that was given and is not listened on yet is not given again, until all of this process's have been.
    """
    global _own  # noqa: PLW0603  - one slice for a process, and one for a process that it forks
    if _own is None or _own.process != os.getpid():
        _own = _Slice()
    randomness, ports = SystemRandomness(), list[int]()
    with ExitStack() as held:
        while len(ports) < count:
            if len(_own.given) == _PORTS_EACH:
                _own.given.clear()
                _own.given.update(ports)
            port = _own.first + int.from_bytes(randomness.draw(4), "big") % _PORTS_EACH
            if port in _own.given:
                continue
            _own.given.add(port)
            with suppress(OSError):
                held.enter_context(socket.socket()).bind((_HOST, port))
                ports.append(port)
    return ports
