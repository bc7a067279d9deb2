"""The consumer's half of ETSI GS QKD 014 V1.1.1 as a codec: an SAE writes requests and reads answers. No I/O."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from heliograph.errors import KeySupplyError
from heliograph.kme.etsi014 import UUID_TEXT, Status
from heliograph.kme.key_sizes import read_extension
from heliograph.kme.strict_json import MalformedDocument, read_document
from heliograph.kme.supply import SupplyStatus
from heliograph.types import DeliveredKey

__all__ = ["key_ids_document", "key_request_document", "read_container", "read_error", "read_status"]

_Record = TypeVar("_Record")


class _Key(msgspec.Struct):
    key_ID: str  # noqa: N815  - 6.3's name
    key: str
    key_extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


class _Container(msgspec.Struct):
    keys: list[_Key]
    key_container_extension: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


def key_request_document(number: int, size_bits: int, mandatory: Mapping[str, object] | None = None) -> bytes:
    """Return the body of POST enc_keys. ``mandatory``: extensions that the KME must meet (6.2)."""
    request: dict[str, object] = {"number": number, "size": size_bits}
    if mandatory:
        request["extension_mandatory"] = [{name: value} for name, value in mandatory.items()]
    return msgspec.json.encode(request)


def key_ids_document(key_ids: Sequence[str]) -> bytes:
    """Return the body of POST dec_keys."""
    return msgspec.json.encode({"key_IDs": [{"key_ID": key_id} for key_id in key_ids]})


def read_container(document: bytes, number: int, size_bits: int | None) -> list[DeliveredKey]:
    """Read a Key container that must hold ``number`` different keys of ``size_bits``, any if None.

    Raises KeySupplyError.

    Extension members are ignored, as 6.3 makes them optional.
    """
    container = _answer(document, _Container)
    keys: list[DeliveredKey] = []
    for entry in container.keys:
        if not UUID_TEXT.fullmatch(entry.key_ID):
            raise KeySupplyError("the KME's answer has a key_ID that is not a UUID")
        try:
            material = base64.b64decode(entry.key, validate=True)
        except ValueError:
            material = b""
        # Decoding is not injective: only what encodes back to the same text is taken.
        sound = base64.b64encode(material).decode("ascii") == entry.key and material != b""
        if not sound or size_bits not in {None, 8 * len(material)}:
            wanted = "some" if size_bits is None else size_bits
            raise KeySupplyError(f"the KME's answer has a key that is not {wanted} bits of base64")
        keys.append(DeliveredKey(entry.key_ID.lower(), material))
    if len(keys) != number or len({key.key_id for key in keys}) != number:
        raise KeySupplyError(f"the KME answered with {len(keys)} keys where {number} different ones were asked for")
    return keys


def read_status(document: bytes) -> SupplyStatus:
    """Read a Status document. Raises KeySupplyError."""
    status = _answer(document, Status)
    stored_by_size, unfetched = read_extension(status.status_extension)
    return SupplyStatus(
        source_kme=status.source_KME_ID,
        target_kme=status.target_KME_ID,
        caller_sae=status.master_SAE_ID,
        peer_sae=status.slave_SAE_ID,
        key_size_bits=status.key_size,
        stored_key_count=status.stored_key_count,
        max_key_count=status.max_key_count,
        max_key_per_request=status.max_key_per_request,
        max_sae_id_count=status.max_SAE_ID_count,
        min_key_size_bits=status.min_key_size if status.min_key_size < status.key_size else None,
        max_key_size_bits=status.max_key_size if status.max_key_size > status.key_size else None,
        stored_by_size=stored_by_size,
        unfetched=unfetched,
    )


def read_error(document: bytes) -> str:
    """Return an Error document's message in one line of at most 200 characters, or a remark that there was none."""
    try:
        content = read_document(document)
    except MalformedDocument:
        content = None
    message = content.get("message") if isinstance(content, dict) else None
    if not isinstance(message, str) or not message.strip():
        return "no reason given"
    return "".join(character if character.isprintable() else " " for character in message[:200])


def _answer(document: bytes, record: type[_Record]) -> _Record:
    try:
        return msgspec.convert(read_document(document), record, strict=True)
    except MalformedDocument as error:
        raise KeySupplyError(f"the KME's answer cannot be read: {error}") from None
    except msgspec.ValidationError:
        # The parser's text could quote what it saw, and this document holds keys.
        raise KeySupplyError(f"the KME's answer is not the standard's {record.__name__.strip('_')}") from None
