"""PostgreSQL's messages, as much of them as it takes to count them and to answer one (PostgreSQL 15, 55.7)."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["ANSWER_ENDS", "REQUESTS", "Splitter", "copy_fail", "error", "process_of", "query", "ready"]

# What a client waits after: its start, a simple query, a Sync, and the end of a COPY's data.
REQUESTS: Final = frozenset({"startup", "Q", "S", "c"})
# What ends an answer: ReadyForQuery, or the word that the data of a COPY may come.
ANSWER_ENDS: Final = frozenset({"Z", "G"})
_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102


class Splitter:
    """Cuts one direction of a connection into whole messages. ``client``: its first message has no type byte."""

    def __init__(self, *, client: bool) -> None:
        self._untyped = client
        self._left = b""

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Take bytes as they come. Returns the (type, bytes) of what is whole by now.

        A type is the message's letter, or "startup", "cancel" or "encryption" for those without one.
        """
        self._left += data
        found = []
        while (size := self._whole()) and len(self._left) >= size:
            message, self._left = self._left[:size], self._left[size:]
            found.append((self._type(message), message))
        return found

    def _whole(self) -> int:
        before = 0 if self._untyped else 1
        if len(self._left) < before + 4:
            return 0
        return before + int(struct.unpack_from("!I", self._left, before)[0])

    def _type(self, message: bytes) -> str:
        if not self._untyped:
            return chr(message[0])
        code = struct.unpack_from("!I", message, 4)[0]
        if code in {_SSL, _GSS}:  # the start still follows
            return "encryption"
        self._untyped = False
        return "cancel" if code == _CANCEL else "startup"


def error(severity: str, code: str, text: str) -> bytes:
    """Return an ErrorResponse. ``severity``: ERROR or FATAL; ``code``: five characters (PostgreSQL 15, appendix A)."""
    fields = {"S": severity, "V": severity, "C": code, "M": text}
    return _message(b"E", b"".join(f"{name}{value}\0".encode() for name, value in fields.items()) + b"\0")


def ready(status: bytes) -> bytes:
    """Return a ReadyForQuery. ``status``: I outside a transaction, T in one, E in one that failed."""
    return _message(b"Z", status)


def query(text: str) -> bytes:
    """Return a simple query."""
    return _message(b"Q", text.encode() + b"\0")


def copy_fail() -> bytes:
    """Return the client's word that a COPY failed."""
    return _message(b"f", b"given up\0")


def process_of(message: bytes) -> int:
    """Return the server's process that a BackendKeyData names."""
    return int(struct.unpack_from("!I", message, 5)[0])


def _message(letter: bytes, body: bytes) -> bytes:
    return letter + struct.pack("!I", 4 + len(body)) + body
