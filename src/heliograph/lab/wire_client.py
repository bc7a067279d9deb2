"""One SAE and its malformed traffic: sends cases over real sockets, reads what comes, and asks properly in between."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from heliograph.lab.malformed_wire import WireCase, whole_request
from heliograph.lab.marked_kme import FORMS, owner_of

__all__ = ["WireClient", "WireCounts"]

_PATIENCE_S: Final = 20.0  # for an answer that must come; a busy machine takes its time
_MORE_S: Final = 0.1  # for an answer that need not come: the server may wait for more
_UNFINISHED_S: Final = 0.01
_HEAD: Final = re.compile(rb"HTTP/[0-9]\.[0-9] ([0-9]{3}) ")
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset, which leaves no port waiting


@dataclass
class WireCounts:
    """What one client saw. ``served``: malformed requests answered with success; ``wrong``: valid ones that failed."""

    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    served: int = 0
    server_errors: int = 0
    canaries: int = 0
    stalled: int = 0
    valid: int = 0
    wrong: int = 0
    strange_keys: int = 0
    connections: int = 0
    slowest_s: float = 0.0
    key_ids: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def add(self, other: WireCounts) -> None:
        """Count what another client saw."""
        self.cases += other.cases
        self.statuses += other.statuses
        for name in (
            "unanswered", "served", "server_errors", "canaries", "stalled", "valid", "wrong", "strange_keys",
            "connections",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.key_ids += other.key_ids
        self.found += other.found


class _Ended(Exception):
    """The server ended the connection before a whole answer came."""


class WireClient:
    """SAE ``number`` at the key manager on ``port``; ``tls`` shows its certificate."""

    def __init__(self, number: int, port: int, tls: ssl.SSLContext) -> None:
        self.number, self._port, self._tls = number, port, tls
        self.counts = WireCounts()
        self._open: ssl.SSLSocket | None = None
        self._read, self._before = b"", "nothing"
        self.ended = False

    def send(self, case: WireCase) -> None:
        """Send one malformed case and count what comes of it."""
        self.counts.cases[case.kind] += 1
        began = time.perf_counter()
        self._before = f"{case.kind}: {[piece[:160] for piece in case.pieces[:3]]}"
        if case.one_answer:
            self._ask_badly(case)
        else:
            self._provoke(case)
        self.counts.slowest_s = max(self.counts.slowest_s, time.perf_counter() - began)

    def ask(self, turn: int) -> None:
        """Send a valid request, by the short way, by aiohttp's, or for the status; check that the answer is ours."""
        self.counts.valid += 1
        further = (b"X-Other: 1",) if turn % 3 == 1 else ()
        path = f"/api/v1/keys/peer-{self.number}/"
        if turn % 3 == 2:
            data = whole_request(path + "status", b"", verb="GET")
        else:
            data = whole_request(path + "enc_keys", b'{"number":1}', *further)
        try:
            connection = self._connected()
            connection.sendall(data)
            status, body = self._answer(connection, _PATIENCE_S, valid=True)
            document = json.loads(body)
            if turn % 3 == 2:
                sound = status == 200 and document["master_SAE_ID"] == f"sae-{self.number}"
            else:
                (key,) = document["keys"] if status == 200 else ({"key": "", "key_ID": ""},)
                sound = owner_of(key["key"]) == self.number
                self.counts.key_ids.append(key["key_ID"])
                if not sound and key["key"]:
                    self.counts.strange_keys += 1
        except (OSError, _Ended, ValueError, KeyError) as why:
            sound, status = False, 0
            self._note(f"a valid request failed: {type(why).__name__} after {self._before}")
        if not sound:
            self.counts.wrong += 1
            self._note(f"a valid request was answered with {status}")
            self.close()

    def close(self) -> None:
        """End the connection at once."""
        if self._open is not None:
            with suppress(OSError):
                self._open.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._open.close()
            self._open = None

    def _note(self, text: str) -> None:
        if len(self.counts.found) < 10:
            self.counts.found.append(text)

    def _connected(self) -> ssl.SSLSocket:
        if self.ended:
            self.close()
        if self._open is None:
            self.counts.connections += 1
            self._read, self.ended = b"", False
            raw = socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE_S)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each piece is a record and a packet of its own
            self._open = self._tls.wrap_socket(raw, server_hostname="127.0.0.1")
        return self._open

    def _ask_badly(self, case: WireCase) -> None:
        """Send what ends where HTTP says: one answer comes, a refusal."""
        try:
            connection = self._connected()
            for piece in case.pieces:
                if piece:
                    connection.sendall(piece)
            status, _ = self._answer(connection, _PATIENCE_S)
            self._judge(status, case)
        except TimeoutError:
            self.counts.stalled += 1
            self._note(f"{case.kind}: no answer")
            self.close()
        except (_Ended, OSError, ValueError):
            self.counts.unanswered += 1
            self.close()

    def _provoke(self, case: WireCase) -> None:
        """Send what may end the connection; read whatever comes, then end it."""
        self.close()
        patience = _UNFINISHED_S if case.unfinished else _MORE_S
        answers = 0
        try:
            if case.handshake:
                connection: socket.socket = self._connected()
            else:
                self.counts.connections += 1
                connection = socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE_S)
            with connection:
                send = socket.socket.sendall if case.kind == "broken record" else type(connection).sendall
                for piece in case.pieces:
                    if piece:
                        send(connection, piece)
                if case.handshake:
                    answers = self._all_answers(connection, patience, case)
                else:
                    self._no_answer(connection)
        except (_Ended, OSError, ValueError):
            pass
        finally:
            self.close()
        self.counts.unanswered += not answers

    def _all_answers(self, connection: socket.socket, patience: float, case: WireCase) -> int:
        answers = 0
        try:
            while True:
                status, _ = self._answer(connection, patience)
                answers += 1
                self._judge(status, case)
        except TimeoutError:
            socket.socket.shutdown(connection, socket.SHUT_WR)  # it waits for more, and there is none
            connection.settimeout(_PATIENCE_S)
            try:
                self._search(connection.recv(65536))
            except TimeoutError:
                self.counts.stalled += 1
                self._note(f"{case.kind}: the connection stays after its end")
            return answers
        except (_Ended, OSError):
            return answers

    def _no_answer(self, connection: socket.socket) -> None:
        """Without a handshake: nothing but TLS's own alerts."""
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_PATIENCE_S)
        try:
            while piece := connection.recv(65536):
                self._search(piece)
                self.counts.served += b"HTTP/" in piece
        except TimeoutError:
            self.counts.stalled += 1
            self._note("broken hello: the connection stays after its end")

    def _judge(self, status: int, case: WireCase) -> None:
        self.counts.statuses[status] += 1
        if status < 400 and status != 100:
            self.counts.served += 1
            self._note(f"{case.kind}: served: {b''.join(case.pieces)[:200]!r}")
        if status >= 500:
            self.counts.server_errors += 1
            self._note(f"{case.kind}: {status}: {b''.join(case.pieces)[:200]!r}")

    def _search(self, data: bytes) -> None:
        if any(form in data for form in FORMS):
            self.counts.canaries += 1

    def _answer(self, connection: socket.socket, patience: float, *, valid: bool = False) -> tuple[int, bytes]:
        """Return status and body of one answer. Raises TimeoutError, _Ended, OSError."""
        connection.settimeout(patience)
        while b"\r\n\r\n" not in self._read:
            self._receive(connection)
            connection.settimeout(_PATIENCE_S)  # what has begun will end
        head, _, rest = self._read.partition(b"\r\n\r\n")
        found = _HEAD.match(head)
        if found is None:
            raise ValueError("no HTTP answer")
        lengths = _LENGTH.findall(head)
        length = int(lengths[0]) if lengths else 0
        while len(self._read) < len(head) + 4 + length:
            self._receive(connection)
        rest = self._read[len(head) + 4 :]
        body, self._read = rest[:length], rest[length:]  # what is left belongs to the next answer
        if not valid:
            self._search(head + body)
        # HTTP/1.0 ends the connection unless it says otherwise.
        self.ended = b"connection: close" in head.lower() or not head.startswith(b"HTTP/1.1")
        return int(found[1]), body

    def _receive(self, connection: socket.socket) -> None:
        piece = connection.recv(65536)
        if not piece:
            self._search(self._read)
            raise _Ended
        self._read += piece
