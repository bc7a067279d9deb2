"""Queries of GET requests, strict: a member comes once, and no other does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from heliograph.kme.supply import RequestRefused

__all__ = ["read_integer", "read_query"]

_INTEGER = re.compile(r"[0-9]{1,9}")


def read_query(query: str, allowed: set[str]) -> dict[str, str]:
    """Read a query in which each allowed member comes at most once. Raises RequestRefused."""
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=len(allowed)
        )
    except ValueError:
        raise RequestRefused("Bad request format: the query is malformed, or has too many members") from None
    members = dict(pairs)
    if len(members) != len(pairs) or not members.keys() <= allowed:
        raise RequestRefused(
            f"Bad request format: the query may have {' and '.join(sorted(allowed))}, each once; use POST for more"
        )
    return members


def read_integer(members: Mapping[str, str], name: str) -> int | None:
    """Return a member in plain decimal digits, None if it is absent. Raises RequestRefused."""
    text = members.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise RequestRefused(f"{name} must be a positive integer")
    return int(text)
