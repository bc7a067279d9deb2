"""Stands between sessions and a PostgreSQL server, counts what is said, and at one message makes one thing go wrong."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random
from typing import Final

from heliograph.lab.pg_wire import ANSWER_ENDS, REQUESTS, Splitter, copy_fail, error, process_of, query, ready

__all__ = ["Fault", "FaultyProxy", "What"]

_READ: Final = 1 << 16
_SOCKET: Final = ".s.PGSQL.5432"


class What(Enum):
    """What goes wrong. Those above the line are counted by messages, those below by requests, which have an answer."""

    NOTHING = "nothing"
    CUT_BEFORE = "cut before a message"  # the server never sees it
    CUT_AFTER = "cut after a message"  # the server has done it, and its answer is lost
    # ----
    CUT_ANSWER = "cut in an answer"  # a part of the answer arrives
    ERROR = "error"  # the server does not do it and says why
    ACT_BEFORE = "act before"  # ``act`` runs, then the server gets it, if it still can
    ACT_DURING = "act during"  # the server has got it and works on it
    ACT_AFTER = "act after"  # the server has done it, and its answer is lost


_BY_MESSAGE: Final = frozenset({What.NOTHING, What.CUT_BEFORE, What.CUT_AFTER})
_UNCOUNTED: Final = frozenset({"X", "cancel", "H"})  # a goodbye, a word on another connection, and no more than a nudge


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault at the ``at``-th message or request from now on; the next ``away`` connections are refused then.

    ``only``: count those that contain it; ``code``: of ERROR; ``fatal``: it ends the session; ``act``: what happens,
    given the session's server process.
    """

    what: What
    at: int = 0
    away: int = 0
    only: bytes = b""
    code: str = ""
    fatal: bool = False
    act: Callable[[int], None] | None = field(default=None, repr=False)


class _CutError(Exception):
    """This connection ends here."""


class _Way:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.asked, self.answers = Splitter(client=True), Splitter(client=False)
        self.held: list[bytes] = []  # of a request that may be refused whole
        self.process = 0


class FaultyProxy:
    """Listens as a server's Unix socket in ``directory``. Usable from any thread."""

    def __init__(self, directory: Path, server: Path, seed: int = 1) -> None:
        self._server = server / _SOCKET
        self._chance = Random(seed)  # noqa: S311  - a laboratory's choice, no secret
        self._turn = threading.Lock()
        self._fault, self._away = Fault(What.NOTHING), 0
        self._ways: set[_Way] = set()
        self.messages = self.requests = 0  # since the last ``arm``
        self.fired = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / _SOCKET))
        (directory / _SOCKET).chmod(0o777)
        self._listener.listen(64)
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, fault: Fault) -> None:
        """Count anew, up to this fault."""
        with self._turn:
            self._fault, self._away, self.fired = fault, 0, False
            self.messages = self.requests = 0

    def disarm(self) -> bool:
        """Let everything pass. Returns whether the fault came."""
        with self._turn:
            self._fault, self._away = Fault(What.NOTHING), 0
            return self.fired

    def drop(self) -> None:
        """End every connection, as after a long silence."""
        with self._turn:
            ways = list(self._ways)
        for way in ways:
            _shut(way)

    def close(self) -> None:
        """End everything."""
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    # -- connections ---------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._turn:
                refused = self._away > 0
                self._away -= refused
            if refused:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        way = _Way(client, server)
        with self._turn:
            self._ways.add(way)
        try:
            server.connect(str(self._server))
            self._relay(way)
        except (_CutError, OSError):
            pass
        finally:
            with self._turn:
                self._ways.discard(way)
            _shut(way)
            client.close()
            server.close()

    def _relay(self, way: _Way) -> None:
        while True:
            there, _, _ = select.select([way.client, way.server], [], [])
            if way.server in there:
                for _, message in self._heard(way):
                    way.client.sendall(message)
            if way.client in there:
                data = way.client.recv(_READ)
                if not data:
                    return
                for kind, message in way.asked.feed(data):
                    self._take(way, kind, message)

    @staticmethod
    def _heard(way: _Way) -> list[tuple[str, bytes]]:
        data = way.server.recv(_READ)
        if not data:
            raise _CutError
        found = way.answers.feed(data)
        for kind, message in found:
            if kind == "K":
                way.process = process_of(message)
        return found

    def _answer(self, way: _Way) -> list[tuple[str, bytes]]:
        """Wait for all that the server says to what it was sent: then it has done it."""
        found: list[tuple[str, bytes]] = []
        while not found or found[-1][0] not in ANSWER_ENDS:
            found += self._heard(way)
        return found

    # -- the one message -----------------------------------------------------------------------------------------

    def _take(self, way: _Way, kind: str, message: bytes) -> None:
        if kind == "encryption":
            way.client.sendall(b"N")
            return
        request = kind in REQUESTS
        fault = self._counted(way, kind, message)
        with self._turn:
            may_refuse = self._fault.what is What.ERROR or (fault is not None and fault.what is What.ERROR)
        if may_refuse and fault is None and not request and kind not in _UNCOUNTED:
            way.held.append(message)  # the server gets a request whole, or not at all
            return
        if fault is None:
            way.server.sendall(b"".join((*way.held, message)))
            way.held.clear()
            return
        self._break(way, fault, kind, message)

    def _counted(self, way: _Way, kind: str, message: bytes) -> Fault | None:
        """Count one message. Returns the fault if it is its turn."""
        request = kind in REQUESTS
        with self._turn:
            fault = self._fault
            if kind in _UNCOUNTED or fault.only not in message:
                return None
            self.messages += 1
            self.requests += request
            if fault.what in _BY_MESSAGE:
                due = self.messages == fault.at
            elif fault.act is not None:  # on a process of the server's, so from the first session on that has one
                due = request and self.requests >= fault.at and way.process > 0
            else:
                due = request and self.requests == fault.at
            if not due or self.fired:
                return None
            self.fired, self._away, self._fault = True, fault.away, Fault(What.NOTHING)
            return fault

    def _break(self, way: _Way, fault: Fault, kind: str, message: bytes) -> None:
        match fault.what:
            case What.CUT_BEFORE:
                raise _CutError
            case What.ERROR:
                self._refuse(way, fault, kind, message)
                return
            case What.ACT_BEFORE if fault.act is not None:
                fault.act(way.process)
                way.server.sendall(message)
                return
        way.server.sendall(message)
        if fault.what is What.ACT_DURING and fault.act is not None:
            fault.act(way.process)
            return
        if kind in REQUESTS:
            answer = b"".join(said for _, said in self._answer(way))
            if fault.what is What.CUT_ANSWER:
                way.client.sendall(answer[: self._chance.randrange(1, len(answer))])
        if fault.act is not None:
            fault.act(way.process)
        raise _CutError

    def _refuse(self, way: _Way, fault: Fault, kind: str, message: bytes) -> None:
        """Answer in the server's place, and bring the server where such an answer would have left it."""
        way.held.clear()
        text = f"could not do it: fault of the laboratory, {fault.code}"
        if kind == "startup" or fault.fatal:
            way.client.sendall(error("FATAL", fault.code, text))
            raise _CutError
        if kind == "c":
            way.server.sendall(copy_fail())
        else:
            if message[5:].startswith(b"COMMIT"):  # one that fails has ended its transaction
                way.server.sendall(query("ROLLBACK"))
                self._answer(way)
            way.server.sendall(query("SELECT 1/0"))  # fails a transaction that is open, as the real error would
        status = self._answer(way)[-1][1][5:]
        way.client.sendall(error("ERROR", fault.code, text) + ready(status))


def _shut(way: _Way) -> None:
    for end in (way.client, way.server):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
