"""The Secure Key Integration Protocol (draft-cisco-skip-02) as a codec: requests become records. No I/O.

A key provider (this KME) serves an encryptor beside it: GET only, JSON. A key's ``keyId`` is its key_ID without
dashes, 128 bits in hexadecimal. Which SAEs stand behind a ``remoteSystemID`` is declared; who asks is read from the
certificate.

What the draft leaves open is settled here as follows. Every parameter may come once and no other is taken; ``size``
must be one of the pair's sizes, of which both sites hold keys, since the other side's request names none; an empty pool
is 503 with Retry-After; an SAE that the certificate does not name as registered gets 401; errors have a body
``{"message": ...}``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import parse_qsl

import msgspec

from heliograph.errors import (
    ConfigurationError,
    HeliographError,
    InsufficientKeys,
    KeyNotFound,
    KeySupplyError,
    NotPermitted,
    StoreUnavailable,
)
from heliograph.kme.supply import OwnerUnreachable, RequestRefused, Supply
from heliograph.types import StoredKey

__all__ = [
    "ENTROPY_BITS_MAX",
    "EntropyUnavailable",
    "SkipSystems",
    "capabilities_document",
    "entropy_document",
    "error_answer",
    "error_document",
    "key_document",
    "read_capabilities_query",
    "read_entropy_query",
    "read_key_by_id",
    "read_key_query",
]

ALGORITHM = "QKD"  # our name for where the keys come from; the draft wants 16 bytes to be supported
ENTROPY_BITS_DEFAULT = 256  # the draft's default (4.3)
ENTROPY_BITS_MAX = 8192  # our choice
SYSTEM_ID_LENGTH_MAX = 256  # our choice; the draft wants at least 32

_INTEGER = re.compile(r"[0-9]{1,9}")
_KEY_ID = re.compile(r"[0-9a-fA-F]{32}")


class EntropyUnavailable(KeySupplyError):
    """The request asks for more entropy than is given at once."""


@dataclass(frozen=True, slots=True)
class SkipSystems:
    """Names of key providers. ``local``: this one's; ``remote``: glob (* ? [list] [!list]) to the SAEs behind it.

    Raises ConfigurationError for names that cannot be IDs.
    """

    local: str
    remote: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        for name in (self.local, *self.remote):
            if not name.strip() or not name.isprintable() or len(name) > SYSTEM_ID_LENGTH_MAX:
                raise ConfigurationError(
                    f"[skip] system ID {name!r}: 1 to {SYSTEM_ID_LENGTH_MAX} printable characters are needed"
                )
        if not self.remote or not all(self.remote.values()):
            raise ConfigurationError("[skip] remote_systems: name at least one system, each with its SAEs")

    def visible(self, supply: Supply, caller: str) -> list[str]:
        """Return the remote systems with which ``caller`` shares keys. Raises NotPermitted if there are none."""
        found = [pattern for pattern, saes in self.remote.items() if _shared(supply, caller, saes)]
        if not found:
            raise NotPermitted("this SAE shares keys with no remote system")
        return found

    def resolve(self, supply: Supply, caller: str, remote: str) -> str:
        """Return the SAE behind ``remote`` that shares keys with ``caller``.

        Raises NotPermitted for an unknown caller, RequestRefused if there is no such SAE, or more than one.
        """
        self.visible(supply, caller)
        saes = {sae for pattern, listed in self.remote.items() if fnmatchcase(remote, pattern) for sae in listed}
        found = _shared(supply, caller, saes)
        if len(found) != 1:
            raise RequestRefused(
                "remoteSystemID names no system that shares keys with this SAE"
                if not found
                else "remoteSystemID matches several systems that share keys with this SAE; name one"
            )
        return found[0]


def _shared(supply: Supply, caller: str, saes: Collection[str]) -> list[str]:
    found = []
    for sae in sorted(saes):
        try:
            supply.authorise(caller, sae)
        except RequestRefused:
            continue
        found.append(sae)
    return found


# -- requests ---------------------------------------------------------------------------------------------------------


def read_capabilities_query(query: str) -> None:
    """Return if /capabilities has no query. Raises RequestRefused."""
    _query(query, set())


def read_key_query(query: str) -> tuple[str, int | None]:
    """Read the query of /key; return the remote system and the size in bits, if it is named. Raises RequestRefused."""
    members = _query(query, {"remoteSystemID", "size"})
    size = _integer(members["size"], "size") if "size" in members else None
    return _remote(members), size


def read_key_by_id(key_id: str, query: str) -> tuple[str, str]:
    """Read the path element and query of /key/{keyId}; return (key_ID, remote system). Raises RequestRefused."""
    if not _KEY_ID.fullmatch(key_id):
        raise RequestRefused("keyId is not 128 bits in hexadecimal")
    return str(uuid.UUID(hex=key_id)), _remote(_query(query, {"remoteSystemID"}))


def read_entropy_query(query: str) -> int:
    """Read the query of /entropy; return the bits asked for. Raises RequestRefused, EntropyUnavailable."""
    members = _query(query, {"minentropy"})
    bits = _integer(members["minentropy"], "minentropy") if "minentropy" in members else ENTROPY_BITS_DEFAULT
    if bits > ENTROPY_BITS_MAX:
        raise EntropyUnavailable(f"minentropy: at most {ENTROPY_BITS_MAX} bits are given at once")
    return bits


def _query(query: str, allowed: set[str]) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=len(allowed) or 1
        )
    except ValueError:
        raise RequestRefused("the query is malformed, or has too many parameters") from None
    members = dict(pairs)
    if len(members) != len(pairs) or not members.keys() <= allowed:
        raise RequestRefused(f"the query may have {' and '.join(sorted(allowed)) or 'no parameter'}, each once")
    return members


def _remote(members: Mapping[str, str]) -> str:
    remote = members.get("remoteSystemID", "")
    if not remote or not remote.isprintable() or len(remote) > SYSTEM_ID_LENGTH_MAX:
        raise RequestRefused("remoteSystemID is missing, or cannot be a system's ID")
    return remote


def _integer(text: str, name: str) -> int:
    if not _INTEGER.fullmatch(text) or int(text) == 0:
        raise RequestRefused(f"{name} must be a positive integer")
    return int(text)


# -- answers ----------------------------------------------------------------------------------------------------------


def capabilities_document(local: str, remote: Collection[str]) -> bytes:
    """Return the answer to /capabilities."""
    return msgspec.json.encode(
        {
            "entropy": True,
            "key": True,
            "algorithm": ALGORITHM,
            "localSystemID": local,
            "remoteSystemID": list(remote),
        }
    )


def key_document(key: StoredKey) -> bytes:
    """Return the answer to /key; the caller now holds the secret."""
    return msgspec.json.encode({"keyId": uuid.UUID(key.key_id).hex, "key": key.material.hex()})


def entropy_document(entropy: bytes) -> bytes:
    """Return the answer to /entropy, counting every bit as one bit of entropy."""
    return msgspec.json.encode({"randomStr": entropy.hex(), "minentropy": 8 * len(entropy)})


def error_document(message: str) -> bytes:
    """Return an error's body."""
    return msgspec.json.encode({"message": message})


def error_answer(error: HeliographError) -> tuple[int, bytes]:
    """Return HTTP status and body: 400 malformed or not found, 401, 500 for the store, 503 for what passes."""
    match error:
        case NotPermitted():
            return 401, error_document("Unauthorized")
        case KeyNotFound():
            return 400, error_document("keyId is not found at this key provider")
        case InsufficientKeys() | OwnerUnreachable() | EntropyUnavailable():
            return 503, error_document(str(error))
        case StoreUnavailable():
            return 500, error_document("the key store is unavailable; nothing was issued")
        case KeySupplyError():
            return 400, error_document(str(error))
    return 500, error_document("Error on server side")
