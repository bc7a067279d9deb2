"""Bytes that no SAE should send: broken HTTP on a TLS connection, and broken TLS where a handshake is due."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from heliograph.lab.malformed import CALLER, MASTER, MalformedRequests

__all__ = ["WireCase", "WireCases", "hello", "whole_request"]

_JSON: Final = b'{"number":1}'
_X: Final = b"X-Other: 1"  # a header that the short way for plain requests does not know
_LONG: Final = b"a" * 9000  # aiohttp's limit for a line of a head is 8190 bytes
_MANY: Final = b"\r\n".join(b"X-%d: 1" % number for number in range(3000))

# Where RFC 9112 and 9110 leave a server no choice but to refuse: each stands in a head that asks for a key.
_BAD_HEADERS: Final = {
    "length": (
        b"Content-Length: 12\r\nContent-Length: 13", b"Content-Length: +12", b"Content-Length: -1",
        b"Content-Length: 0x0c", b"Content-Length: 12, 13", b"Content-Length: 1 2", b"Content-Length: 12\x00",
        b"Content-Length: " + b"9" * 400, b"Content-Length: twelve", b"Content-Length: 18446744073709551628",
    ),
    "coding": (
        b"Content-Length: 12\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 12",
        b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: chunked\x00", b"Transfer-Encoding: chunked;q=1",
        b"Content-Length: 12\r\nTransfer-Encoding : chunked",
    ),
    "header": (
        b"Content-Length : 12", b"Content-Length: 12\r\nX\x00Y: 1", b"Content-Length: 12\r\nX: a\x00b",
        b"Content-Length: 12\r\n: nameless", b"Content-Length: 12\r\nno colon", b"Content-Length: 12\r\nX(: 1",
        b"Content-Length: 12\r\nX: a\rb", b"Content-Length: 12\r\nX\xff: 1", b"Content-Length: 12\r\nX: " + _LONG,
        b"Content-Length: 12\r\n" + _MANY, b"Content-Length: 12\r\n" + _LONG + b": 1",
    ),
    "host": (
        b"Content-Length: 12\r\nHost: other", b"Content-Length: 12\r\nHost: kme", b"Content-Length: 12\r\nhost:",
    ),
}  # fmt: skip
_BAD_CHUNKS: Final = (
    b"G\r\n" + _JSON, b"-1\r\n" + _JSON, b"F" * 40 + b"\r\n" + _JSON, b"0x0c\r\n" + _JSON + b"\r\n0\r\n\r\n",
    b"c \n" + _JSON + b"\n0\n\n", b"c\r\n" + _JSON + b"0\r\n\r\n", b"c\r\n" + _JSON + b"XX0\r\n\r\n",
    b"\r\n" + _JSON + b"\r\n0\r\n\r\n", b"c;\n" + _JSON + b"\r\n0\r\n\r\n", b"\x00c\r\n" + _JSON + b"\r\n0\r\n\r\n",
)  # fmt: skip
_BAD_LINES: Final = (
    b"POST\t%s\tHTTP/1.1", b"POST %s", b"POST %s HTTP/1.1 x", b"POST %s http/1.1",
    b"POST %s HTTP/1.10", b"POST %s HTTP/2.0", b"POST %s HTTP/9.9", b"POST %s HTTP/0.9", b"POST %s HTTP/1,1",
    b"POST %s XTTP/1.1", b" POST %s HTTP/1.1", b"\x00POST %s HTTP/1.1", b"P\xc3\x96ST %s HTTP/1.1", b"%s HTTP/1.1",
    b"POST \xff%s HTTP/1.1", b"POST %s\x00 HTTP/1.1", b"POST %s%%zz HTTP/1.1", b"POST /%s HTTP/1.1",
    b"POST %s%%20 HTTP/1.1", b"POST %s%%0d%%0aX:1 HTTP/1.1", b"POST \\%s HTTP/1.1", b"POST %s;x HTTP/1.1",
    b"POST * HTTP/1.1", b"CONNECT kme:443 HTTP/1.1", b"GET %s HTTP/1.1", b"POST /x/..%s HTTP/1.1",
    b"POST %s/ HTTP/1.1", b"POST %s?number=1 HTTP/1.1", b"POST /%%2fapi%s HTTP/1.1", b"POST " + _LONG + b"%s HTTP/1.1",
    b"POST kme:443%s HTTP/1.1", b"POST ftp://kme\x01%s HTTP/1.1", b"POST %s%%00 HTTP/1.1", b"POST \xc0\xae%s HTTP/1.1",
)  # fmt: skip
_HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)


@dataclass(frozen=True, slots=True)
class WireCase:
    """What is sent on one connection, in ``pieces``.

    ``handshake``: whether a TLS handshake comes first. ``one_answer``: HTTP says where the request ends, so that one
    answer comes and the connection may stay; without it, this side ends the connection once nothing more comes.
    ``unfinished``: the server may rightly wait for more.
    """

    kind: str
    pieces: tuple[bytes, ...] = field(repr=False)
    handshake: bool = True
    one_answer: bool = False
    unfinished: bool = False


def whole_request(path: str, body: bytes = _JSON, *further: bytes, verb: str = "POST") -> bytes:
    """Return a well-formed request; without ``further`` headers it is a plain one."""
    lines = [f"{verb} {path} HTTP/1.1".encode(), b"Host: kme", *further]
    if verb != "GET" or body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def hello() -> bytes:
    """Return a real ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class WireCases:
    """Draws cases from a seeded generator. ``foreign``: key_IDs that are stored, but not for this SAE."""

    def __init__(self, seed: int, peer: str, others_peer: str, foreign: list[str]) -> None:
        self._draw = random.Random(seed)  # noqa: S311  - tests are repeated, nothing here is secret
        self._documents = MalformedRequests(seed, foreign)
        self._peer, self._enc = peer, f"/api/v1/keys/{peer}/enc_keys"
        self._refused = f"/api/v1/keys/{others_peer}/enc_keys"  # 401 however it is put
        self._hello = hello()
        self._kinds: tuple[Callable[[], WireCase], ...] = (
            *[self._document] * 8, *[self._header] * 4, self._chunks, self._line, self._line, self._cut, self._cut,
            self._lengths, self._lenient, self._pipelined, self._foreign_protocol, self._record, self._hello_broken,
        )  # fmt: skip

    def next(self) -> WireCase:
        """Return one more case."""
        return self._draw.choice(self._kinds)()

    def _split(self, data: bytes) -> tuple[bytes, ...]:
        """Cut anywhere: into two, sometimes into single bytes, mostly not."""
        what = self._draw.randrange(16)
        if what < 4:
            at = self._draw.randrange(len(data) + 1)
            return data[:at], data[at:]
        return tuple(data[i : i + 1] for i in range(len(data))) if what == 4 and len(data) < 600 else (data,)

    def _document(self) -> WireCase:
        """Well-formed HTTP around what the rules must refuse, by the short way or by aiohttp's."""
        asked = self._documents.next()
        while asked.caller != CALLER or asked.verb == "HEAD":
            asked = self._documents.next()
        path = (asked.path + (f"?{asked.query}" if asked.query else "")).replace(MASTER, self._peer)
        further = (_X,) if self._draw.randrange(3) == 0 else ()
        data = whole_request(path, asked.body, *further, verb=asked.verb)
        return WireCase("document", self._split(data), one_answer=True)

    def _head(self, line: bytes, headers: bytes, host: bytes = b"Host: kme\r\n") -> bytes:
        return line + b"\r\n" + host + headers + b"\r\n\r\n"

    def _header(self) -> WireCase:
        kind = self._draw.choice(tuple(_BAD_HEADERS))
        head = self._head(f"POST {self._enc} HTTP/1.1".encode(), self._draw.choice(_BAD_HEADERS[kind]))
        if kind == "host" and self._draw.randrange(4) == 0:
            return WireCase(kind, self._split(whole_request(self._enc).replace(b"Host: kme\r\n", b"")))
        # Smuggled behind the body, whichever of the two ends it: a request that would be served.
        body = b"0\r\n\r\n" if kind == "coding" else _JSON
        return WireCase(kind, self._split(head + body + whole_request(self._enc)))

    def _chunks(self) -> WireCase:
        head = self._head(f"POST {self._enc} HTTP/1.1".encode(), b"Transfer-Encoding: chunked")
        return WireCase("chunks", self._split(head + self._draw.choice(_BAD_CHUNKS)), unfinished=True)

    def _line(self) -> WireCase:
        line = self._draw.choice(_BAD_LINES)
        line = line % self._enc.encode() if b"%s" in line else line
        return WireCase("request line", self._split(self._head(line, b"Content-Length: 12") + _JSON))

    def _cut(self) -> WireCase:
        data = whole_request(self._enc, _JSON, *((_X,) if self._draw.randrange(2) else ()))
        return WireCase("cut", (data[: self._draw.randrange(1, len(data))],), unfinished=True)

    def _lengths(self) -> WireCase:
        length, body = self._draw.choice(
            ((b"5", _JSON), (b"13", _JSON), (b"65537", b"{" * 65537), (b"1000000000", b"{"))
        )
        head = self._head(f"POST {self._enc} HTTP/1.1".encode(), b"Content-Length: " + length)
        return WireCase("wrong length", (head + body,), unfinished=True)

    def _lenient(self) -> WireCase:
        """Return what a server may take as it stands; so it asks for what this SAE may not have."""
        line, headers = f"POST {self._refused} HTTP/1.1".encode(), b"Content-Length: 12"
        data = self._draw.choice((
            self._head(line, headers + b"\r\nX: a\r\n folded") + _JSON,
            self._head(line.replace(b" ", b"  "), headers) + _JSON,
            self._head(line.replace(b" /", b" https://kme/"), headers) + _JSON,
            self._head(line.replace(b"enc_keys", b"enc%5Fkeys"), headers) + _JSON,
            self._head(line.replace(b"1.1", b"1.0"), headers) + _JSON,
            self._head(line, headers + b"\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA")
            + _JSON,
            self._head(line, headers + b"\r\nExpect: 100-continue\r\nExpect: nonsense") + _JSON,
            self._head(line, headers + b"\r\nConnection: close\r\nContent-Encoding: gzip") + _JSON,
            self._head(line, b"Transfer-Encoding: chunked") + b"c;x=y\r\n" + _JSON + b"\r\n0\r\nX: 1\r\n\r\n",
            self._head(line, headers).replace(b"\r\n", b"\n") + _JSON,
            b"\r\n" * 9 + self._head(line, headers) + _JSON,
        ))  # fmt: skip
        return WireCase("lenient", self._split(data), unfinished=True)

    def _pipelined(self) -> WireCase:
        """Return requests in one piece: after HTTP that cannot be read, the next one must not be believed."""
        broken = self._head(b"POST %s HTTP/1.1" % self._enc.encode(), b"Content-Length: x") + _JSON
        refused = [whole_request(self._refused, b"{%d" % number) for number in range(self._draw.randrange(1, 40))]
        return WireCase("pipelined", self._split(b"".join(refused) + broken + whole_request(self._enc)))

    def _foreign_protocol(self) -> WireCase:
        noise = self._draw.randbytes(self._draw.randrange(1, 300))
        choices = (_HTTP2, b"GET %s\r\n" % self._enc.encode(), self._hello, noise, b"\x00" * 9000, b"\r\n" * 4000)
        return WireCase("foreign protocol", (self._draw.choice(choices),), unfinished=True)

    def _record(self) -> WireCase:
        """Return a record after the handshake that the connection's keys did not make."""
        noise = self._draw.randbytes(self._draw.randrange(1, 60))
        kind = self._draw.choice((b"\x14", b"\x15", b"\x16", b"\x17", b"\x80"))
        length = self._draw.choice((len(noise), 0, 0xFFFF))
        data = kind + b"\x03" + self._draw.choice((b"\x00", b"\x03")) + length.to_bytes(2, "big") + noise
        return WireCase("broken record", (data,), unfinished=True)

    def _hello_broken(self) -> WireCase:
        data, what = bytearray(self._hello), self._draw.randrange(6)
        if what == 0:
            data = data[: self._draw.randrange(1, len(data))]
        elif what == 1:
            for _ in range(self._draw.randrange(1, 9)):
                data[self._draw.randrange(len(data))] = self._draw.randrange(256)
        elif what == 2:
            data = bytearray(self._draw.randbytes(self._draw.randrange(1, 400)))
        elif what == 3:
            data = bytearray(whole_request(self._enc))
        elif what == 4:
            data[3:5] = self._draw.choice((b"\x00\x00", b"\xff\xff", b"\x40\x01"))
        else:
            data *= 2
        return WireCase("broken hello", (bytes(data),), handshake=False, unfinished=True)
