"""JSON that means the same to every reader (RFC 8259, I-JSON RFC 7493): anything doubtful is refused."""

from __future__ import annotations

import json
from typing import Final

import msgspec

from heliograph.errors import KeySupplyError

__all__ = ["MalformedDocument", "read_document"]


class MalformedDocument(KeySupplyError):
    """The document is not strict JSON; nothing in it was acted on."""


_DECODER: Final[msgspec.json.Decoder[object]] = msgspec.json.Decoder(strict=True)


def read_document(document: bytes) -> object:
    """Parse UTF-8 JSON into plain dicts, lists, strings, numbers, booleans and None.

    Raises MalformedDocument for text that is not UTF-8 or not JSON (NaN, trailing text, lone surrogates), for a name
    that comes twice in an object, and for nesting deeper than the parser's stack.
    """
    try:
        # (1) One parser checks the grammar; (2) the other sees every name, so that a repeated one is noticed.
        _DECODER.decode(document)
        return json.loads(document.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except MalformedDocument:
        raise
    except RecursionError:
        raise MalformedDocument("the JSON document is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise MalformedDocument("the document is not UTF-8 JSON (RFC 8259)") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedDocument("a name comes twice in a JSON object")
    return members


def _no_constant(_: str) -> object:
    raise MalformedDocument("NaN and Infinity are not JSON")
