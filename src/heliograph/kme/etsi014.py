"""ETSI GS QKD 014 V1.1.1 as a codec: requests become records, records become documents. No I/O.

What the standard leaves open is settled here as follows. The container's member is ``keys`` (6.3's examples); a POST
without a body is an empty key request; an empty ``additional_slave_SAE_IDs`` is refused; a member that the standard
does not define is refused at the top level of a request, since ignoring it could mean a key that the caller did not
ask for; unknown members of ``extension_optional`` are ignored (6.2 allows it); key_IDs are UUIDs in either case,
answered in lower case; a 401 carries a body although table 4 has none, because clients parse it; too few keys, and a
caller beyond its quota, is a 503 that says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

from heliograph.errors import (
    HeliographError,
    InsufficientKeys,
    KeyNotFound,
    KeySupplyError,
    NotPermitted,
    StoreUnavailable,
)
from heliograph.kme.key_facts import KNOWN, KeyFacts, Wishes, read_wishes, wants_facts
from heliograph.kme.key_sizes import status_extension
from heliograph.kme.query import read_integer, read_query
from heliograph.kme.strict_json import MalformedDocument, read_document
from heliograph.kme.supply import Limits, OwnerUnreachable, RequestRefused, SupplyStatus, WishUnmet
from heliograph.types import StoredKey

__all__ = [
    "MESSAGE_NOT_FOUND",
    "UUID_TEXT",
    "KeyIds",
    "KeyRequest",
    "Status",
    "container_document",
    "error_answer",
    "error_document",
    "read_key_ids",
    "read_key_ids_query",
    "read_key_request",
    "read_key_request_query",
    "status_document",
]

# The standard's own words (6.2, tables 4, 6 and 8).
MESSAGE_SIZE = "size shall be a multiple of 8"
MESSAGE_MANDATORY = "not all extension_mandatory parameters are supported"
MESSAGE_UNMET = "not all extension_mandatory request options could be met"
MESSAGE_NOT_FOUND = "one or more keys specified are not found on KME"
MESSAGE_BAD_REQUEST = "Bad request format"
MESSAGE_UNAUTHORIZED = "Unauthorized"
MESSAGE_SERVER = "Error on server side"

# Our choices.
MAX_NAMES_REPORTED = 16
MAX_NAME_LENGTH = 64
_SMALL_BODY = 128
_BODIES_REMEMBERED = 256

UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")

_Extensions = list[dict[str, object]]
_Record = TypeVar("_Record")


class _KeyRequest(msgspec.Struct, forbid_unknown_fields=True):
    number: int = 1
    size: int | msgspec.UnsetType = msgspec.UNSET
    additional_slave_SAE_IDs: list[str] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815  - 6.2's name
    extension_mandatory: _Extensions | msgspec.UnsetType = msgspec.UNSET
    extension_optional: _Extensions | msgspec.UnsetType = msgspec.UNSET


_NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A key request (6.2), checked. ``size_bits``: if named; ``additional``: further slaves, none of them twice."""

    number: int = 1
    size_bits: int | None = None
    additional: tuple[str, ...] = ()
    wishes: Wishes = _NO_WISHES


@dataclass(frozen=True, slots=True)
class KeyIds:
    """A request by key IDs (6.4), checked: different UUIDs in lower case. ``facts``: told with the keys."""

    key_ids: tuple[str, ...]
    facts: bool = False


class _KeyId(msgspec.Struct):
    key_ID: str  # noqa: N815  - 6.4's name
    key_ID_extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815  - the same


class _KeyIds(msgspec.Struct, forbid_unknown_fields=True):
    key_IDs: list[_KeyId]  # noqa: N815  - 6.4's name
    key_IDs_extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815  - the same


class _GivenKey(msgspec.Struct, gc=False):
    """``_Key`` before it is text: msgspec writes bytes as base64 (RFC 4648 4), as 6.3 has it."""

    key_ID: str  # noqa: N815  - 6.3's name
    key: bytes
    key_extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


class _Given(msgspec.Struct):
    keys: list[_GivenKey]
    key_container_extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


_WRITE: Final = msgspec.json.Encoder().encode


class Status(msgspec.Struct):
    """The Status document (6.1)."""

    source_KME_ID: str  # noqa: N815  - 6.1's names
    target_KME_ID: str  # noqa: N815
    master_SAE_ID: str  # noqa: N815
    slave_SAE_ID: str  # noqa: N815
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int  # noqa: N815
    status_extension: Any = msgspec.UNSET


# -- requests, as the KME reads them ------------------------------------------------------------------------------


def read_key_request(body: bytes, limits: Limits) -> KeyRequest:
    """Read the body of POST enc_keys (6.2). Raises KeySupplyError (400)."""
    return _read_small(body, limits) if len(body) <= _SMALL_BODY else _read_key_request(body, limits)


def _read_key_request(body: bytes, limits: Limits) -> KeyRequest:
    request = _convert(read_document(body), _KeyRequest) if body else _KeyRequest()
    # (1) What the KME must understand before anything else.
    mandatory, optional = _extensions(request.extension_mandatory), _extensions(request.extension_optional)
    if names := [name for name in mandatory if name not in KNOWN]:
        raise RequestRefused(
            MESSAGE_MANDATORY,
            [
                ("extension_mandatory_unsupported", f"{name[:MAX_NAME_LENGTH]} is not supported")
                for name in names[:MAX_NAMES_REPORTED]
            ],
        )
    # (2) Multicast.
    additional: list[str] = []
    if request.additional_slave_SAE_IDs is not msgspec.UNSET:
        additional = request.additional_slave_SAE_IDs
        if not additional:
            raise RequestRefused("additional_slave_SAE_IDs is empty; leave it out")
        if len(set(additional)) != len(additional) or not all(name.strip() for name in additional):
            raise RequestRefused("additional_slave_SAE_IDs: an SAE ID is blank or comes twice")
    # (3) Size and number.
    size = None if request.size is msgspec.UNSET else request.size
    _check(request.number, size, limits)
    return KeyRequest(request.number, size, tuple(additional), read_wishes(mandatory, optional))


# Who asks for keys asks for the same again and again; a refusal is not remembered.
_read_small = lru_cache(_BODIES_REMEMBERED)(_read_key_request)


def read_key_request_query(query: str, limits: Limits) -> KeyRequest:
    """Read the query of GET enc_keys, ``number`` and ``size`` only (5.2). Raises KeySupplyError (400)."""
    members = read_query(query, {"number", "size"})
    number, size = read_integer(members, "number"), read_integer(members, "size")
    request = KeyRequest(1 if number is None else number, size)
    _check(request.number, size, limits)
    return request


def read_key_ids(body: bytes, limits: Limits) -> KeyIds:
    """Read the body of POST dec_keys (6.4), in the order of the request. Raises KeySupplyError (400)."""
    if not body:
        raise RequestRefused("the request has no body; key_IDs is needed")
    request = _convert(read_document(body), _KeyIds)
    if not request.key_IDs:
        raise RequestRefused("key_IDs is empty; name at least one key")
    if len(request.key_IDs) > limits.max_key_per_request:
        raise RequestRefused(
            f"key_IDs: {len(request.key_IDs)} exceeds max_key_per_request = {limits.max_key_per_request}"
        )
    key_ids = tuple(_uuid(entry.key_ID) for entry in request.key_IDs)
    if len(set(key_ids)) != len(key_ids):
        raise RequestRefused("key_IDs: a key_ID comes twice; each key is delivered once")
    extension = request.key_IDs_extension
    return KeyIds(key_ids, extension is not msgspec.UNSET and wants_facts(extension))


def read_key_ids_query(query: str) -> KeyIds:
    """Read the query of GET dec_keys, exactly one ``key_ID`` (5.4). Raises KeySupplyError (400)."""
    members = read_query(query, {"key_ID"})
    if "key_ID" not in members:
        raise RequestRefused("key_ID is missing in the query")
    return KeyIds((_uuid(members["key_ID"]),))


def _extensions(objects: _Extensions | msgspec.UnsetType) -> dict[str, object]:
    """Return the members of all objects. Raises RequestRefused for a name that comes twice."""
    found: dict[str, object] = {}
    for extension in [] if objects is msgspec.UNSET else objects:
        if found.keys() & extension.keys():
            raise RequestRefused(f"{MESSAGE_BAD_REQUEST}: an extension comes twice")
        found |= extension
    return found


def _check(number: int, size: int | None, limits: Limits) -> None:
    # Which sizes there are depends on who shares the keys: the supply says so.
    if size is not None:
        if size <= 0:
            raise RequestRefused("size must be a positive number of bits")
        if size % 8:
            raise RequestRefused(MESSAGE_SIZE)
    if number <= 0:
        raise RequestRefused("number must be at least 1")
    if number > limits.max_key_per_request:
        raise RequestRefused(f"number exceeds max_key_per_request = {limits.max_key_per_request}")


def _uuid(text: str) -> str:
    if not UUID_TEXT.fullmatch(text):
        raise RequestRefused("a key_ID is not a UUID (RFC 4122)")
    return text.lower()


def _convert(document: object, record: type[_Record]) -> _Record:
    try:
        return msgspec.convert(document, record, strict=True)
    except msgspec.ValidationError as error:
        raise RequestRefused(f"{MESSAGE_BAD_REQUEST}: {str(error)[:200]}") from None


# -- answers, as the KME writes them ------------------------------------------------------------------------------


def status_document(status: SupplyStatus) -> bytes:
    """Return the Status document (6.1)."""
    return msgspec.json.encode(
        Status(
            source_KME_ID=status.source_kme,
            target_KME_ID=status.target_kme,
            master_SAE_ID=status.caller_sae,
            slave_SAE_ID=status.peer_sae,
            key_size=status.key_size_bits,
            stored_key_count=status.stored_key_count,
            max_key_count=status.max_key_count,
            max_key_per_request=status.max_key_per_request,
            max_key_size=status.max_key_size_bits or status.key_size_bits,
            min_key_size=status.min_key_size_bits or status.key_size_bits,
            max_SAE_ID_count=status.max_sae_id_count,
            status_extension=status_extension(status.stored_by_size, status.unfetched) or msgspec.UNSET,
        )
    )


def container_document(keys: Sequence[StoredKey], facts: KeyFacts | None = None) -> bytes:
    """Return the Key container (6.3), with ``facts`` in its extensions; the caller now holds the secret."""
    if facts is None:
        return _WRITE(_Given([_GivenKey(key.key_id, key.material) for key in keys]))
    told = [_GivenKey(key.key_id, key.material, facts.of(key)) for key in keys]
    return _WRITE(_Given(told, facts.container(keys)))


def error_document(message: str, details: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return the Error document (6.5); ``details`` are pairs of a name and a text."""
    document: dict[str, object] = {"message": message}
    if details:
        document["details"] = [{name: text} for name, text in details]
    return msgspec.json.encode(document)


def error_answer(error: HeliographError) -> tuple[int, bytes]:
    """Return the HTTP status (400, 401 or 503, as tables 4, 6 and 8) and the Error document for a refusal."""
    status, message = 503, MESSAGE_SERVER
    details: Sequence[tuple[str, str]] = ()
    match error:
        case NotPermitted():
            status, message, details = 401, MESSAGE_UNAUTHORIZED, [("reason", str(error))]
        case KeyNotFound():
            status, message = 400, MESSAGE_NOT_FOUND
        case WishUnmet():
            status, message, details = 400, MESSAGE_UNMET, [("extension_mandatory_unmet", f"{error.name}: {error}")]
        case InsufficientKeys() | OwnerUnreachable():
            message = str(error)
        case StoreUnavailable():
            # The cause names paths of this site: it belongs into the log, not into an answer.
            details = [("reason", "the key store is unavailable; nothing was issued")]
        case MalformedDocument():
            status, message = 400, f"{MESSAGE_BAD_REQUEST}: {error}"
        case RequestRefused():
            status, message, details = 400, str(error), error.details
        case KeySupplyError():
            status, message = 400, str(error)
    return status, error_document(message, details)
