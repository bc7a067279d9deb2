"""What two key managers of a protected site say to each other (ETSI GS QKD 020 V1.1.1), as records. No I/O.

Names, codes and limits are those of the published OpenAPI description (1.1.1). Extensions have names E<PEN>_name and
any JSON value; what is not understood here is passed on as it came.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from heliograph.errors import KeySupplyError

__all__ = [
    "ACK_ITEMS_MAX",
    "ETSI_PEN",
    "Ack",
    "AckStatus",
    "ExtKey",
    "ExtKeys",
    "Extension",
    "InterworkingError",
    "Slug",
    "Void",
    "is_sae_id",
]

ACK_ITEMS_MAX = 1024  # the standard's
ETSI_PEN = 13019  # reserved: "shall not be used"

Extension = Mapping[str, object]

# 1 to 64 characters that a URI may have (RFC 3986 2), a percent sign only where it encodes.
_SAE_ID = re.compile(r"(?=.{1,64}\Z)(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")


class AckStatus(StrEnum):
    """What became of a key at the other key manager."""

    RELAYED = "relayed"
    FAILED = "failed"
    VOIDED = "voided"
    FAILED_TO_VOID = "failed to void"
    NOT_PRESENT = "key not present"


class Slug(StrEnum):
    """The standard's error types; their HTTP status and more are in ``etsi020``."""

    MISSING_PARAMETERS = "missing-parameters"
    KEY_ROUTING = "key-routing-error"
    VOID_NOT_UNDERSTOOD = "void-request-not-understood"
    NO_KEY_IDS = "no-key-ids-or-confirmation"
    ACK_NOT_UNDERSTOOD = "ack-not-understood"
    KEY_NOT_PRESENT = "key-not-present"
    UNAUTHORIZED = "unauthorized"
    TIMEOUT = "timeout"
    SERVER = "server-side-general-error"
    INSUFFICIENT = "insufficient-key-material"
    UNSUPPORTED_EXTENSION = "unsupported-mandatory-extension"


class InterworkingError(KeySupplyError):
    """The request of another key manager is refused; ``slug`` is the standard's type, ``details`` name to text.

    ``name``: of the entry of the details that has the reason, where it is not the type's usual one.
    """

    def __init__(
        self, slug: Slug, text: str, details: Mapping[str, str] | None = None, name: str | None = None
    ) -> None:
        super().__init__(text)
        self.slug = slug
        self.details = dict(details or {})
        self.name = name


@dataclass(frozen=True, slots=True)
class ExtKey:
    """One key on its way between two key managers."""

    key_id: str
    value: bytes = field(repr=False)
    extension: Extension | None = None


@dataclass(frozen=True, slots=True)
class ExtKeys:
    """A hand-over. Without ``callback`` the sender asks for the synchronous mode; ``optional``: extensions."""

    keys: tuple[ExtKey, ...]
    initiator: str
    targets: tuple[str, ...]
    callback: str | None = None
    optional: Extension | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """What became of some keys. ``extension``: of them all; ``key_extensions``: of each that has one."""

    key_ids: tuple[str, ...]
    status: AckStatus
    initiator: str
    targets: tuple[str, ...]
    message: str | None = None
    extension: Extension | None = None
    key_extensions: Mapping[str, Extension] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Void:
    """A request to destroy keys; empty ``key_ids``: all of this initiator and these targets."""

    key_ids: tuple[str, ...]
    initiator: str
    targets: tuple[str, ...]
    callback: str | None = None


def is_sae_id(text: str) -> bool:
    """Tell whether an SAE ID can be written in this interface."""
    return _SAE_ID.fullmatch(text) is not None
