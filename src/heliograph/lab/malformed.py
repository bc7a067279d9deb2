"""Requests that no SAE should send (ETSI GS QKD 014): each is malformed, or not this caller's to make."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

__all__ = ["CALLER", "MASTER", "THIEF", "Malformed", "MalformedRequests"]

CALLER, THIEF, MASTER = "sae-a", "sae-2", "sae-b"
_UNKNOWN = "00000000-0000-4000-8000-000000000000"
_ENC = json.dumps({"number": 1, "size": 256, "extension_optional": [{"abc_max_age": 1}]}).encode()
_DEC = json.dumps({"key_IDs": [{"key_ID": _UNKNOWN}]}).encode()
_VALUES = (
    b"-1", b"0", b"1.0", b"1e9", b"NaN", b"Infinity", b"null", b"true", b'"1"', b"[]", b"{}", b"129", b"01", b"+1",
    b"9" * 400, b"-0", b'"\\ud800"', b"[" * 3000, b'{"a":' * 2000, b"1e999",
)  # fmt: skip
_NAMES = (b"number", b"size", b"additional_slave_SAE_IDs", b"extension_mandatory", b"numbers", b"__proto__", b"\\u0000")
_PATHS = (
    "/", "/api", "/api/v1/keys", "/api/v1/keys/sae-b", "/api/v2/keys/sae-b/status", "/api/v1/keys/../enc_keys",
    "/api/v1/keys/sae-b/enc_keys/", "//api/v1/keys/sae-b/enc_keys", "/api/v1/keys/%2e%2e/enc_keys",
    "/api/v1/keys/%ff/enc_keys", "/api/v1/keys/%00/enc_keys", "/api/v1/keys/%20/dec_keys", "/api/v1/keys//status",
    "/api/v1/keys/sae-a/enc_keys", "/api/v1/keys/sae-b%2f/enc_keys", "/api/v1/keys/sae-q/dec_keys",
    "/API/v1/keys/sae-b/enc_keys", "/api/v1/keys/sae-b/ENC_KEYS", "/api/v1/keys/%/status",
)  # fmt: skip
_QUERIES = (
    "number=0", "number=-1", "number=1.0", "number=129", "number=%31%00", "number=1&number=1", "size=255", "size=0",
    "size=128", "count=1", "number", "=1", "&", "number=1&size=256&x=1", "number=+1", "number=" + "9" * 400, "size=%ff",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Malformed:
    """One request: who sends it, and what arrives."""

    caller: str
    verb: str
    path: str
    query: str = ""
    body: bytes = field(default=b"", repr=False)


class MalformedRequests:
    """Draws requests from a seeded generator. ``foreign``: key_IDs that are stored, but not for ``CALLER``."""

    def __init__(self, seed: int, foreign: list[str]) -> None:
        self._draw = random.Random(seed)  # noqa: S311  - tests are repeated, nothing here is secret
        self._foreign = foreign
        self._kinds = (
            self._value,
            self._value,
            self._cut,
            self._not_utf8,
            self._noise,
            self._repeated,
            self._place,
            self._query,
            self._key_ids,
            self._stranger,
            self._verb,
            self._theft,
        )

    def next(self) -> Malformed:
        """Return one more request."""
        return self._draw.choice(self._kinds)()

    def _post(self, body: bytes, method: str = "enc_keys") -> Malformed:
        return Malformed(CALLER, "POST", f"/api/v1/keys/{MASTER}/{method}", "", body)

    def _value(self) -> Malformed:
        name, value = self._draw.choice(_NAMES), self._draw.choice(_VALUES)
        if (name, value) == (b"extension_mandatory", b"[]") or value == b"-0":  # both mean "none", -0 means 0
            value = b"{"
        return self._post(b'{"' + name + b'":' + value + b"}")

    def _whole(self) -> tuple[bytes, str]:
        return self._draw.choice(((_ENC, "enc_keys"), (_DEC, "dec_keys")))

    def _cut(self) -> Malformed:
        body, method = self._whole()
        return self._post(body[: self._draw.randrange(1, len(body))], method)

    def _not_utf8(self) -> Malformed:
        body, method = self._whole()
        at = self._draw.randrange(len(body))
        return self._post(body[:at] + self._draw.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80")) + body[at:], method)

    def _noise(self) -> Malformed:
        return self._post(b"\x00" + self._draw.randbytes(self._draw.randrange(200)), self._whole()[1])

    def _repeated(self) -> Malformed:
        return self._post(b'{"number":1,"number":%d}' % self._draw.randrange(1, 100))

    def _place(self) -> Malformed:
        return Malformed(CALLER, self._draw.choice(("GET", "POST")), self._draw.choice(_PATHS))

    def _query(self) -> Malformed:
        return Malformed(CALLER, "GET", f"/api/v1/keys/{MASTER}/enc_keys", self._draw.choice(_QUERIES))

    def _key_ids(self) -> Malformed:
        entry: object = self._draw.choice(
            (_UNKNOWN[:-1], _UNKNOWN + "0", "", 7, None, [_UNKNOWN], {"key_ID": 1}, {"key_id": _UNKNOWN}, "%00", "'--")
        )
        wanted = self._draw.choice((entry, {"key_ID": entry}))
        return self._post(json.dumps({"key_IDs": [wanted] * self._draw.choice((1, 2, 129))}).encode(), "dec_keys")

    def _stranger(self) -> Malformed:
        caller = self._draw.choice(("", "SAE-A", "sae-a ", MASTER, "sae-q", "sae-a\x00"))
        method = self._draw.choice(("status", "enc_keys", "dec_keys"))
        return Malformed(caller, "GET", f"/api/v1/keys/{MASTER}/{method}", "" if method != "dec_keys" else "key_ID=1")

    def _verb(self) -> Malformed:
        verb = self._draw.choice(("PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "X" * 100))
        return Malformed(CALLER, verb, f"/api/v1/keys/{MASTER}/{self._draw.choice(('status', 'enc_keys'))}")

    def _theft(self) -> Malformed:
        key_id = self._draw.choice((*self._foreign, f"{self._draw.getrandbits(32):08x}{_UNKNOWN[8:]}"))
        return Malformed(CALLER, "GET", f"/api/v1/keys/{MASTER}/dec_keys", f"key_ID={key_id}")
