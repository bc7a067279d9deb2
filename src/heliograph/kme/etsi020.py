"""ETSI GS QKD 020 V1.1.1 as a codec: keys handed from one key manager to another inside a protected site. No I/O.

    GET  /kmapi/versions            POST /kmapi/v1/ext_keys/ack
    POST /kmapi/v1/ext_keys         POST /kmapi/v1/ext_keys/void

Names, codes and shapes are those of the published OpenAPI description (1.1.1). Errors are RFC 9457 documents, sent as
application/json. What is left open is settled here as follows. A target that this KME does not reach, a key size it
does not serve, a known key_id with another value and a callback elsewhere than declared are 400, so that the sender may
reassign the key. Unknown members are refused. 202, and 200 for an acknowledgement, have no body. Optional extensions
are kept as they came, to be passed on; of the mandatory ones none is known.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from heliograph.errors import HeliographError, InsufficientKeys, NotPermitted
from heliograph.kme.etsi020_records import (
    ACK_ITEMS_MAX,
    Ack,
    AckStatus,
    Extension,
    ExtKey,
    ExtKeys,
    InterworkingError,
    Slug,
    Void,
    is_sae_id,
)
from heliograph.kme.strict_json import MalformedDocument, read_document
from heliograph.kme.supply import RequestRefused

__all__ = [
    "KEYS_MAX",
    "acks_document",
    "error_answer",
    "ext_keys_document",
    "read_acks",
    "read_ext_keys",
    "read_versions",
    "read_void",
    "versions_document",
    "void_document",
]

VERSION = "v1"
SYNCHRONOUS = "synchronous_mode"
TYPE_BASE = "https://qkd.etsi.org/gs020-interop-kms/"
KEYS_MAX = 128  # our choice
MESSAGE_LENGTH_MAX = 4096  # the standard's
CALLBACK_LENGTH_MAX = 1024  # the standard's
EXTENSIONS_MAX = 1024  # the standard's
KEY_BYTES_MAX = 512  # our choice

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_EXTENSION = re.compile(r"E[0-9]{1,10}_[A-Za-z0-9_.-]{1,128}")
_Record = TypeVar("_Record")


# HTTP status, and the name of the entry of ``details`` that the standard's text or examples give the reason under. The
# title is the type's words, as in the examples.
_ERRORS: Mapping[Slug, tuple[int, str]] = {
    Slug.MISSING_PARAMETERS: (400, "missing_parameters"),
    Slug.KEY_ROUTING: (400, "invalid_routing"),
    Slug.VOID_NOT_UNDERSTOOD: (400, "key_voiding_error"),
    Slug.NO_KEY_IDS: (400, "no_all_confirmation"),
    Slug.ACK_NOT_UNDERSTOOD: (400, "ack_not_understood"),
    Slug.KEY_NOT_PRESENT: (400, "key_not_present"),
    Slug.UNAUTHORIZED: (401, "unauthorized"),
    Slug.TIMEOUT: (408, "timeout"),
    Slug.SERVER: (503, "server_side_general_error"),
    Slug.INSUFFICIENT: (503, "insufficient_key_material"),
    Slug.UNSUPPORTED_EXTENSION: (503, "unsupported_mandatory_extension"),
}


class _Key(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    key_id: str
    value: str
    extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


class _ExtKeys(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    keys: list[_Key]
    initiator_sae_id: str
    target_sae_ids: list[str]
    ack_callback_url: str | msgspec.UnsetType = msgspec.UNSET
    extension_mandatory: dict[str, object] | msgspec.UnsetType = msgspec.UNSET
    extension_optional: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


class _KeyId(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    key_id: str
    extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


class _Ack(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    key_id_container: list[_KeyId]
    ack_status: str
    initiator_sae_id: str
    target_sae_ids: list[str]
    message: str | msgspec.UnsetType = msgspec.UNSET
    extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


class _Void(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    key_ids: list[str]
    initiator_sae_id: str
    target_sae_ids: list[str]
    ack_callback_url: str | msgspec.UnsetType = msgspec.UNSET
    extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET
    all_confirmation: bool = False


# -- what a key manager reads -----------------------------------------------------------------------------------------


def read_ext_keys(body: bytes) -> ExtKeys:
    """Read the body of POST ext_keys; which sizes are taken is the caller's to say.

    Raises InterworkingError; then no key of it was taken.
    """
    slug = Slug.MISSING_PARAMETERS
    document = _convert(body, _ExtKeys, slug)
    for extension in (document.extension_mandatory, document.extension_optional, *(k.extension for k in document.keys)):
        _check_extension(extension, slug)
    if document.extension_mandatory:
        names = ", ".join(list(document.extension_mandatory)[:16])
        raise InterworkingError(Slug.UNSUPPORTED_EXTENSION, f"no mandatory extension is supported here: {names}")
    if not 1 <= len(document.keys) <= KEYS_MAX:
        raise InterworkingError(slug, f"keys: between 1 and {KEYS_MAX} are taken at once")
    keys = tuple(
        ExtKey(_uuid(key.key_id, slug), _value(key.value), _unset_extension(key.extension)) for key in document.keys
    )
    if len({key.key_id for key in keys}) != len(keys):
        raise InterworkingError(slug, "keys: a key_id comes twice")
    return ExtKeys(
        keys,
        *_saes(document.initiator_sae_id, document.target_sae_ids, slug),
        _callback(document.ack_callback_url, slug),
        _unset_extension(document.extension_optional),
    )


def read_acks(body: bytes) -> list[Ack]:
    """Read the body of POST ext_keys/ack, an array, or a synchronous answer, which is one too.

    Raises InterworkingError; nothing of it was acted on.
    """
    slug = Slug.ACK_NOT_UNDERSTOOD
    documents = _convert(body, list[_Ack], slug)
    if not 1 <= len(documents) <= ACK_ITEMS_MAX:
        raise InterworkingError(slug, f"between 1 and {ACK_ITEMS_MAX} acknowledgements are taken at once")
    return [_ack(document) for document in documents]


def _ack(document: _Ack) -> Ack:
    slug = Slug.ACK_NOT_UNDERSTOOD
    if document.ack_status not in set(AckStatus):
        raise InterworkingError(slug, "ack_status is none of the standard's")
    if not 1 <= len(document.key_id_container) <= ACK_ITEMS_MAX:
        raise InterworkingError(slug, f"key_id_container: between 1 and {ACK_ITEMS_MAX} keys")
    for extension in (document.extension, *(k.extension for k in document.key_id_container)):
        _check_extension(extension, slug)
    key_ids = tuple(_uuid(entry.key_id, slug) for entry in document.key_id_container)
    initiator, targets = _saes(document.initiator_sae_id, document.target_sae_ids, slug)
    message = _unset(document.message)
    if message is not None and len(message) > MESSAGE_LENGTH_MAX:
        raise InterworkingError(slug, f"message: at most {MESSAGE_LENGTH_MAX} characters")
    each = {
        key_id: entry.extension
        for key_id, entry in zip(key_ids, document.key_id_container, strict=True)
        if isinstance(entry.extension, dict)
    }
    of_all = _unset_extension(document.extension)
    return Ack(key_ids, AckStatus(document.ack_status), initiator, targets, message, of_all, each)


def read_void(body: bytes) -> Void:
    """Read the body of POST ext_keys/void. Raises InterworkingError; nothing of it was acted on."""
    slug = Slug.VOID_NOT_UNDERSTOOD
    document = _convert(body, _Void, slug)
    _check_extension(document.extension, slug)
    if not document.key_ids and not document.all_confirmation:
        raise InterworkingError(Slug.NO_KEY_IDS, "key_ids is empty: all_confirmation must be true to void all keys")
    if document.key_ids and document.all_confirmation:
        raise InterworkingError(slug, "key_ids and all_confirmation contradict each other: give one")
    if len(document.key_ids) > ACK_ITEMS_MAX:
        raise InterworkingError(slug, f"key_ids: at most {ACK_ITEMS_MAX} at once")
    key_ids = tuple(_uuid(key_id, slug) for key_id in document.key_ids)
    if len(set(key_ids)) != len(key_ids):
        raise InterworkingError(slug, "key_ids: a key_id comes twice")
    return Void(
        key_ids,
        *_saes(document.initiator_sae_id, document.target_sae_ids, slug),
        _callback(document.ack_callback_url, slug),
    )


def read_versions(body: bytes) -> tuple[tuple[str, ...], bool]:
    """Read the answer to GET versions: the versions, and whether the synchronous mode is served."""
    document = read_document(body)
    versions = document.get("versions") if isinstance(document, dict) else None
    capabilities = document.get("capabilities", []) if isinstance(document, dict) else None
    if not isinstance(versions, list) or not isinstance(capabilities, list):
        raise MalformedDocument("the answer to GET versions is not the standard's")
    return tuple(str(version) for version in versions), SYNCHRONOUS in capabilities


def _convert(body: bytes, record: type[_Record], slug: Slug) -> _Record:
    try:
        return msgspec.convert(read_document(body), record, strict=True)
    except MalformedDocument as error:
        raise InterworkingError(slug, str(error)) from None
    except msgspec.ValidationError as error:
        # The parser names the member and the type it wanted; it never quotes a value.
        raise InterworkingError(slug, str(error)[:200]) from None


def _check_extension(extension: dict[str, object] | msgspec.UnsetType, slug: Slug) -> None:
    if not isinstance(extension, dict):
        return
    if not 1 <= len(extension) <= EXTENSIONS_MAX or not all(_EXTENSION.fullmatch(name) for name in extension):
        raise InterworkingError(slug, f"an extension has 1 to {EXTENSIONS_MAX} members, each named E<PEN>_name")


def _uuid(text: str, slug: Slug) -> str:
    if not _UUID.fullmatch(text):
        raise InterworkingError(slug, "a key_id is not a UUID (RFC 9562)")
    return text.lower()


def _value(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        value = b""
    if base64.b64encode(value).decode("ascii") != text or not 1 <= len(value) <= KEY_BYTES_MAX:
        raise InterworkingError(Slug.MISSING_PARAMETERS, "a key's value is not base64 (RFC 4648 4)")
    return value


def _callback(url: str | msgspec.UnsetType, slug: Slug) -> str | None:
    if isinstance(url, str) and len(url) > CALLBACK_LENGTH_MAX:
        raise InterworkingError(slug, f"ack_callback_url: at most {CALLBACK_LENGTH_MAX} characters")
    return _unset(url)


def _saes(initiator: str, targets: Sequence[str], slug: Slug) -> tuple[str, tuple[str, ...]]:
    for sae in (initiator, *targets):
        if not is_sae_id(sae):
            raise InterworkingError(slug, "an SAE ID has 1 to 64 characters, of those that a URI may have (RFC 3986)")
    if not targets or len(set(targets)) != len(targets) or initiator in targets:
        raise InterworkingError(slug, "target_sae_ids: at least one, each once, not the initiator")
    return initiator, tuple(targets)


def _unset(value: str | msgspec.UnsetType) -> str | None:
    return None if isinstance(value, msgspec.UnsetType) else value


def _unset_extension(value: dict[str, object] | msgspec.UnsetType) -> Extension | None:
    return None if isinstance(value, msgspec.UnsetType) else value


# -- what a key manager writes ----------------------------------------------------------------------------------------


def versions_document(*, synchronous: bool) -> bytes:
    """Return the answer to GET versions."""
    document: dict[str, object] = {"versions": [VERSION]}
    if synchronous:
        document["capabilities"] = [SYNCHRONOUS]
    return msgspec.json.encode(document)


def ext_keys_document(request: ExtKeys) -> bytes:
    """Return the body of POST ext_keys; it holds the keys."""
    keys = [
        _Key(key.key_id, base64.b64encode(key.value).decode("ascii"), _extension(key.extension)) for key in request.keys
    ]
    callback = msgspec.UNSET if request.callback is None else request.callback
    optional = _extension(request.optional)
    document = _ExtKeys(keys, request.initiator, list(request.targets), callback, extension_optional=optional)
    return msgspec.json.encode(document)


def acks_document(acks: Iterable[Ack]) -> bytes:
    """Return the body of POST ext_keys/ack, and of a synchronous answer to ext_keys or void."""
    return msgspec.json.encode([_ack_record(ack) for ack in acks])


def void_document(request: Void) -> bytes:
    """Return the body of POST ext_keys/void."""
    callback = msgspec.UNSET if request.callback is None else request.callback
    return msgspec.json.encode(
        _Void(
            list(request.key_ids),
            request.initiator,
            list(request.targets),
            callback,
            all_confirmation=not request.key_ids,
        )
    )


def error_answer(error: HeliographError) -> tuple[int, bytes]:
    """Return HTTP status and RFC 9457 document. Only 400 and 401 say that no key was taken over."""
    slug, text, details, named = Slug.SERVER, "the server failed and cannot answer", {}, None
    match error:
        case InterworkingError():
            slug, text, details, named = error.slug, str(error), error.details, error.name
        case NotPermitted():
            slug, text = Slug.UNAUTHORIZED, str(error)
        case InsufficientKeys():
            slug, text = Slug.INSUFFICIENT, str(error)
        case RequestRefused() | MalformedDocument():
            slug, text = Slug.MISSING_PARAMETERS, str(error)
    status, name = _ERRORS[slug]
    title = slug.replace("-", " ")
    document = {"type": TYPE_BASE + slug, "status": status, "title": title, "details": {named or name: text, **details}}
    return status, msgspec.json.encode(document)


def _ack_record(ack: Ack) -> _Ack:
    return _Ack(
        [_KeyId(key_id, _extension(ack.key_extensions.get(key_id))) for key_id in ack.key_ids],
        str(ack.status),
        ack.initiator,
        list(ack.targets),
        msgspec.UNSET if ack.message is None else ack.message,
        _extension(ack.extension),
    )


def _extension(extension: Extension | None) -> dict[str, object] | msgspec.UnsetType:
    return dict(extension) if extension else msgspec.UNSET
