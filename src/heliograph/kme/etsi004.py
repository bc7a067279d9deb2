"""ETSI GS QKD 004 V2.1.1 on the wire: the calls as records, and the de-facto encoding (version 1.0.1). No I/O.

The standard names parameters and status codes, not bytes. The bytes here are those of the implementations that name
ETSI's library as their origin: a header of 8 bytes (major, minor, patch, service type, payload length u32), then the
payload, integers big endian. They differ in two places, and both forms are served, each answered in its own:

    form        Metadata_mimetype            GET_KEY asks with         a call that failed is answered with
    fixed       256 bytes, filled with 0     the size of the metadata  its status, and what the standard returns then
    text        ends with its first 0        a buffer of that size     all fields

The fixed form is that of the Python port, the text form that of the C library. In the fixed form status 7 has the
counter-proposal, status 8 the metadata size that is needed. Their lengths tell the two apart.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from heliograph.errors import RemoteProtocolError

__all__ = [
    "HEADER_BYTES",
    "JSON",
    "MIMETYPE_BYTES",
    "NULL_KSID",
    "REQUEST_BYTES_MAX",
    "Close",
    "CloseReply",
    "GetKey",
    "GetKeyReply",
    "OpenConnect",
    "OpenReply",
    "Qos",
    "Reply",
    "Request",
    "Service",
    "Status",
    "encode",
    "payload_length",
    "read_reply",
    "read_request",
]

VERSION: Final = (1, 0, 1)
HEADER_BYTES: Final = 8
MIMETYPE_BYTES: Final = 256  # 6.2: char[256]
NULL_KSID: Final = bytes(16)
JSON: Final = "application/json"  # 6.2: must be supported
URI_BYTES_MAX: Final = 1024  # our choice
REQUEST_BYTES_MAX: Final = 2 * (URI_BYTES_MAX + 1) + 28 + MIMETYPE_BYTES + 16
REPLY_BYTES_MAX: Final = 1 << 20

_HEADER: Final = struct.Struct(">BBBBI")
_QOS: Final = struct.Struct(f">7I{MIMETYPE_BYTES}s")
_GET: Final = struct.Struct(">16sII")
_U32: Final = struct.Struct(">I")


class Status(IntEnum):
    """Table 2 of V2.1.1. Edition 3 renumbers these."""

    SUCCESSFUL = 0
    PEER_NOT_CONNECTED = 1
    INSUFFICIENT_KEY = 2
    PEER_NOT_YET_CONNECTED = 3
    NO_QKD_CONNECTION = 4
    KSID_IN_USE = 5
    TIMEOUT = 6
    QOS_NOT_MET = 7
    METADATA_SIZE = 8


class Service(IntEnum):
    """Service types of the header."""

    OPEN_REQUEST = 0x02
    OPEN_RESPONSE = 0x03
    GET_REQUEST = 0x04
    GET_RESPONSE = 0x05
    CLOSE_REQUEST = 0x08
    CLOSE_RESPONSE = 0x09


@dataclass(frozen=True, slots=True)
class Qos:
    """Quality of service (6.2): bytes, bit/s, bit/s, bit/s, priority, ms, s; an empty ``mimetype``: no metadata."""

    key_chunk_size: int
    max_bps: int = 0
    min_bps: int = 0
    jitter: int = 0
    priority: int = 0
    timeout_ms: int = 0
    ttl_s: int = 0
    mimetype: str = ""


@dataclass(frozen=True, slots=True)
class OpenConnect:
    """OPEN_CONNECT. ``source``: URI of the server, ``destination``: of the client (sic); ``ksid``: 16 bytes.

    ``text``: it came in the text form.
    """

    source: str
    destination: str
    qos: Qos
    ksid: bytes = NULL_KSID
    text: bool = False


@dataclass(frozen=True, slots=True)
class OpenReply:
    """The answer; QoS and KSID are there with status 0, 1 and 7."""

    status: Status
    qos: Qos | None = None
    ksid: bytes = NULL_KSID


@dataclass(frozen=True, slots=True)
class GetKey:
    """GET_KEY. ``metadata_size``: bytes the caller has for metadata; ``text``: its answer may be in the text form."""

    ksid: bytes
    index: int
    metadata_size: int
    text: bool = False


@dataclass(frozen=True, slots=True)
class GetKeyReply:
    """The answer: index, key and metadata with status 0, the size that is needed with status 8."""

    status: Status
    index: int = 0
    key: bytes = field(default=b"", repr=False)
    metadata: bytes = b""
    metadata_size: int = 0


@dataclass(frozen=True, slots=True)
class Close:
    """CLOSE."""

    ksid: bytes


@dataclass(frozen=True, slots=True)
class CloseReply:
    """The answer."""

    status: Status


Request = OpenConnect | GetKey | Close
Reply = OpenReply | GetKeyReply | CloseReply
_SERVICES: Final = {
    OpenConnect: Service.OPEN_REQUEST,
    OpenReply: Service.OPEN_RESPONSE,
    GetKey: Service.GET_REQUEST,
    GetKeyReply: Service.GET_RESPONSE,
    Close: Service.CLOSE_REQUEST,
    CloseReply: Service.CLOSE_RESPONSE,
}


def payload_length(header: bytes, limit: int) -> int:
    """Return how many bytes follow ``header``. Raises RemoteProtocolError for another version or too many."""
    major, _, _, _, length = _HEADER.unpack(header)
    if major != VERSION[0]:
        raise RemoteProtocolError(f"wire version {major}; only {VERSION[0]} is spoken here")
    if length > limit:
        raise RemoteProtocolError(f"a payload of {length} bytes; at most {limit} are taken")
    return int(length)


def encode(message: Request | Reply, *, text: bool = False) -> bytes:
    """Return header and payload. ``text``: the reply is to a request in the text form."""
    payload = _text_reply(message) if text and isinstance(message, OpenReply | GetKeyReply) else _payload(message)
    return _HEADER.pack(*VERSION, _SERVICES[type(message)], len(payload)) + payload


def read_request(header: bytes, payload: bytes) -> Request:
    """Read a request. Raises RemoteProtocolError."""
    service = header[3]
    try:
        if service == Service.OPEN_REQUEST:
            return _read_open(payload)
        if service == Service.GET_REQUEST:
            return _read_get(payload)
        if service == Service.CLOSE_REQUEST:
            (ksid,) = struct.unpack(">16s", payload)
            return Close(ksid)
    except (struct.error, ValueError):
        raise RemoteProtocolError(f"a request of service type {service} with a malformed payload") from None
    raise RemoteProtocolError(f"service type {service} is no request of ETSI GS QKD 004")


def read_reply(header: bytes, payload: bytes) -> Reply:
    """Read a reply, as an application does. Raises RemoteProtocolError."""
    service = header[3]
    try:
        status = Status(_U32.unpack_from(payload)[0])
        rest = payload[4:]
        if service == Service.OPEN_RESPONSE:
            if status not in {Status.SUCCESSFUL, Status.PEER_NOT_CONNECTED, Status.QOS_NOT_MET}:
                return OpenReply(status)
            qos, ksid = _read_qos(rest[: _QOS.size]), rest[_QOS.size :]
            if len(ksid) == len(NULL_KSID):
                return OpenReply(status, qos, ksid)
        if service == Service.GET_RESPONSE:
            return _read_key(status, rest)
        if service == Service.CLOSE_RESPONSE and not rest:
            return CloseReply(status)
    except (struct.error, ValueError):
        pass
    raise RemoteProtocolError(f"a reply of service type {service} that cannot be read")


def _payload(message: Request | Reply) -> bytes:
    match message:
        case OpenConnect(source, destination, qos, ksid, text):
            return source.encode() + b"\0" + destination.encode() + b"\0" + _qos(qos, text=text) + ksid
        case OpenReply(status, qos_or_none, ksid):
            return _U32.pack(status) + (b"" if qos_or_none is None else _qos(qos_or_none) + ksid)
        case GetKey(ksid, index, size, text):
            return _GET.pack(ksid, index, size) + bytes(size if text else 0)
        case GetKeyReply(Status.SUCCESSFUL, index, key, metadata):
            sizes = _U32.pack(len(key)), _U32.pack(len(metadata))
            return _U32.pack(Status.SUCCESSFUL) + _U32.pack(index) + sizes[0] + key + sizes[1] + metadata
        case GetKeyReply(Status.METADATA_SIZE):
            return _U32.pack(Status.METADATA_SIZE) + _U32.pack(message.metadata_size)
        case GetKeyReply(status) | CloseReply(status):
            return _U32.pack(status)
        case Close(ksid):
            return ksid


def _text_reply(reply: OpenReply | GetKeyReply) -> bytes:
    """Return a payload with every field, whatever the status: its reader takes them all."""
    if isinstance(reply, OpenReply):
        return _U32.pack(reply.status) + _qos(reply.qos or Qos(0), text=True) + reply.ksid
    metadata = bytes(reply.metadata_size) if reply.status is Status.METADATA_SIZE else reply.metadata
    key = _U32.pack(len(reply.key)) + reply.key
    return _U32.pack(reply.status) + _U32.pack(reply.index) + key + _U32.pack(len(metadata)) + metadata


def _qos(qos: Qos, *, text: bool = False) -> bytes:
    numbers = (qos.key_chunk_size, qos.max_bps, qos.min_bps, qos.jitter, qos.priority, qos.timeout_ms, qos.ttl_s)
    packed = _QOS.pack(*numbers, qos.mimetype.encode())
    return packed[:-MIMETYPE_BYTES] + qos.mimetype.encode() + b"\0" if text else packed


def _read_qos(packed: bytes) -> Qos:
    *numbers, mimetype = _QOS.unpack(packed)
    # 6.2: a first byte of 0 means no metadata; what follows the end of the text says nothing.
    return replace(Qos(*numbers), mimetype=mimetype.partition(b"\0")[0].decode("ascii"))


def _read_open(payload: bytes) -> OpenConnect:
    source, first, rest = payload.partition(b"\0")
    destination, second, rest = rest.partition(b"\0")
    if not first or not second or not 1 <= len(source) <= URI_BYTES_MAX or not 1 <= len(destination) <= URI_BYTES_MAX:
        raise ValueError("URIs")
    text = len(rest) != _QOS.size + len(NULL_KSID)
    if text:
        numbers = rest[: _QOS.size - MIMETYPE_BYTES]
        mimetype, end, ksid = rest[len(numbers) :].partition(b"\0")
        if not end or len(mimetype) >= MIMETYPE_BYTES or len(ksid) != len(NULL_KSID):
            raise ValueError("length")
        rest = numbers + mimetype.ljust(MIMETYPE_BYTES, b"\0") + ksid
    qos = _read_qos(rest[: _QOS.size])
    return OpenConnect(source.decode(), destination.decode(), qos, rest[_QOS.size :], text)


def _read_get(payload: bytes) -> GetKey:
    ksid, index, size = _GET.unpack_from(payload)
    if len(payload) not in {_GET.size, _GET.size + size}:
        raise ValueError("length")
    return GetKey(ksid, index, size, text=len(payload) == _GET.size + size)


def _read_key(status: Status, rest: bytes) -> GetKeyReply:
    if status is Status.METADATA_SIZE:
        return GetKeyReply(status, metadata_size=_U32.unpack(rest)[0])
    if status is not Status.SUCCESSFUL:
        return GetKeyReply(status)
    index, size = struct.unpack_from(">II", rest)
    key, rest = rest[8 : 8 + size], rest[8 + size :]
    (metadata_size,) = _U32.unpack_from(rest)
    metadata = rest[4:]
    if len(key) != size or len(metadata) != metadata_size:
        raise ValueError("length")
    return GetKeyReply(status, index, key, metadata, metadata_size)
