"""How one direction of a generation protects its records: AES-256-GCM, ChaCha20-Poly1305, or a one-time pad.

With a pad, body = record u32 | offset u32 | payload XOR pad | Poly1305 tag 16, and a pre-filter's tag of 16 bytes after
it (``record_filter``). The first quarter of a direction's pad
holds the tags' one-time keys, 32 bytes for each record by its number; the rest is for payloads, n bytes at the offset.
The two never mix: whoever knows a payload knows its part of the pad, and must not be able to name that part as a tag's
key. Each bit is used once; the pad is a key manager's output as it is, never that of a key derivation.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.poly1305 import Poly1305

from heliograph.consumer.keys import Cipher
from heliograph.errors import KeySupplyError, RemoteProtocolError

__all__ = ["Opener", "PadOpener", "PadSealer", "Sealer", "make_opener", "make_sealer"]

_PLACE: Final = struct.Struct(">II")
_TAG_BYTES: Final = 16
_TAG_KEY_BYTES: Final = 32
_ATTEMPTS_MAX: Final = 1024  # our choice: eps = attempts * 8 * ceil(L / 16) / 2^106 stays below 2^-80 for 64 KiB


class Sealer(Protocol):
    """The sending direction. ``overhead``: bytes a body is longer than its payload."""

    overhead: int

    def seal(self, nonce: bytes, payload: bytes, header: bytes) -> bytes:
        """Return the body. Raises KeySupplyError if there is no key material left for it."""

    def room(self, size: int) -> bool:
        """Whether a data record of ``size`` bytes fits, with something kept for markers and closes."""

    @property
    def half_used(self) -> bool:
        """Whether half of what the cipher has is used."""

    @property
    def left(self) -> int | None:
        """Bytes of pad that are left; None for a cipher that uses none up."""


class Opener(Protocol):
    """The receiving direction."""

    def open(self, nonce: bytes, body: bytes, header: bytes) -> bytes:
        """Return the payload. Raises InvalidTag, RemoteProtocolError; then nothing has changed but a count."""

    @property
    def half_used(self) -> bool:
        """Whether half of what the cipher has is used."""


class _Aead:
    overhead = _TAG_BYTES
    half_used = False
    left = None

    def __init__(self, cipher: AESGCM | ChaCha20Poly1305) -> None:
        self._cipher = cipher

    def seal(self, nonce: bytes, payload: bytes, header: bytes) -> bytes:
        return self._cipher.encrypt(nonce, payload, header)

    def room(self, size: int) -> bool:  # noqa: ARG002  - the generation has the limits of an AEAD
        return True

    def open(self, nonce: bytes, body: bytes, header: bytes) -> bytes:
        return self._cipher.decrypt(nonce, body, header)


def _split(pad: bytes) -> tuple[bytearray, bytearray]:
    """Return the part for the tags' keys, whole keys of about a quarter, and the part for payloads."""
    tags = len(pad) // 4 // _TAG_KEY_BYTES * _TAG_KEY_BYTES
    return bytearray(pad[:tags]), bytearray(pad[tags:])


class PadSealer:
    """Spends both parts of a pad from their starts to their ends."""

    overhead = _PLACE.size + _TAG_BYTES

    def __init__(self, pad: bytes) -> None:
        self._tags, self._pad = _split(pad)
        self._record = 0
        self._at = 0

    def seal(self, nonce: bytes, payload: bytes, header: bytes) -> bytes:  # noqa: ARG002  - the offset takes its place
        """Return place, ciphertext and tag. Raises KeySupplyError if the pad is too short, and nothing is spent."""
        start, end = self._at, self._at + len(payload)
        first, last = self._record * _TAG_KEY_BYTES, (self._record + 1) * _TAG_KEY_BYTES
        if end > len(self._pad) or last > len(self._tags):
            raise KeySupplyError(f"a record of {len(payload)} bytes does not fit the {self.left} bytes of pad left")
        place = _PLACE.pack(self._record, start)
        self._record, self._at = self._record + 1, end  # burnt before use
        taken, key = bytes(self._pad[start:end]), bytes(self._tags[first:last])
        self._pad[start:end], self._tags[first:last] = bytes(end - start), bytes(_TAG_KEY_BYTES)
        body = _xor(payload, taken)
        return place + body + Poly1305.generate_tag(key, header + place + body)

    def room(self, size: int) -> bool:
        """Whether ``size`` bytes fit; a quarter of the pad is kept for markers and closes."""
        tags = len(self._tags) // _TAG_KEY_BYTES
        return self._at + size <= len(self._pad) - len(self._pad) // 4 and self._record < tags - tags // 4

    @property
    def half_used(self) -> bool:
        """Whether half of either part is used: time for another pad."""
        return 2 * self._at >= len(self._pad) or 2 * self._record * _TAG_KEY_BYTES >= len(self._tags)

    @property
    def left(self) -> int | None:
        """Bytes not used yet."""
        return len(self._pad) - self._at + len(self._tags) - self._record * _TAG_KEY_BYTES


class PadOpener:
    """The peer's pad: any order of records, since connections overtake each other, but no byte of it twice."""

    def __init__(self, pad: bytes) -> None:
        self._tags, self._pad = _split(pad)
        self._used = bytearray(len(self._pad))
        self._opened = bytearray(len(self._tags) // _TAG_KEY_BYTES)  # 1: this record's key is used
        self._attempts = 0

    def open(self, nonce: bytes, body: bytes, header: bytes) -> bytes:  # noqa: ARG002  - the offset takes its place
        """Return the payload. Raises InvalidTag, RemoteProtocolError."""
        size = len(body) - _PLACE.size - _TAG_BYTES
        if size < 0:
            raise RemoteProtocolError(f"a record of {len(body)} bytes is too short for a one-time pad")
        record, start = _PLACE.unpack(body[: _PLACE.size])
        end = start + size
        if record >= len(self._opened) or self._opened[record] or end > len(self._pad) or any(self._used[start:end]):
            raise RemoteProtocolError(
                f"record {record} claims the bytes {start} to {end} of the pad: used before, or beyond it"
            )
        if self._attempts >= _ATTEMPTS_MAX:
            raise RemoteProtocolError(f"{_ATTEMPTS_MAX} records under this pad had wrong tags: it is not used any more")
        first, last = record * _TAG_KEY_BYTES, (record + 1) * _TAG_KEY_BYTES
        key = bytes(self._tags[first:last])
        self._attempts += 1  # counted before the comparison
        try:
            Poly1305.verify_tag(key, header + body[:-_TAG_BYTES], body[-_TAG_BYTES:])
        except InvalidSignature:
            raise InvalidTag from None
        self._attempts -= 1
        payload = _xor(body[_PLACE.size : -_TAG_BYTES], bytes(self._pad[start:end]))
        self._pad[start:end], self._tags[first:last] = bytes(end - start), bytes(_TAG_KEY_BYTES)
        self._used[start:end] = b"\1" * (end - start)
        self._opened[record] = 1
        return payload

    @property
    def half_used(self) -> bool:
        """Whether half of either part is used."""
        return 2 * sum(self._used) >= len(self._pad) or 2 * sum(self._opened) >= len(self._opened)


def _xor(data: bytes, pad: bytes) -> bytes:
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(data), "big")


def make_sealer(cipher: Cipher, key: bytes) -> Sealer:
    """Return the sending direction under ``key``: 32 bytes, or a pad."""
    return PadSealer(key) if cipher is Cipher.ONE_TIME_PAD else _aead(cipher, key)


def make_opener(cipher: Cipher, key: bytes) -> Opener:
    """Return the receiving direction under ``key``: 32 bytes, or a pad."""
    return PadOpener(key) if cipher is Cipher.ONE_TIME_PAD else _aead(cipher, key)


def _aead(cipher: Cipher, key: bytes) -> _Aead:
    return _Aead(AESGCM(key) if cipher is Cipher.AES_256_GCM else ChaCha20Poly1305(key))
