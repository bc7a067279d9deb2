"""Reads a link's registration from its file: the whole of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.protocol.registration import LinkRegistration

__all__ = ["read_registration"]


def read_registration(path: Path) -> LinkRegistration:
    """Read a link's registration. Raises ConfigurationError."""
    try:
        data = path.read_bytes()
        registration = msgspec.json.decode(data, type=LinkRegistration)
    except OSError as error:
        raise ConfigurationError(
            f"registration {path}: {error.strerror}; put link.json there, as `site init` made it"
        ) from None
    except (msgspec.MsgspecError, ValueError, RecursionError, ConfigurationError) as error:
        raise ConfigurationError(f"registration {path}: {error}; restore it, as `site init` made it") from None
    if unknown := _unknown(msgspec.json.decode(data), msgspec.to_builtins(registration)):
        raise ConfigurationError(f"registration {path}: unknown entry {unknown}; correct or remove it")
    return registration


def _unknown(given: object, understood: object) -> str:
    """Return the first entry that was written but not understood: a misspelt limit must not be ignored."""
    if isinstance(given, Mapping) and isinstance(understood, Mapping):
        for name, value in given.items():
            if name not in understood:
                return repr(name)
            if found := _unknown(value, understood[name]):
                return f"{found} in {name!r}"
    elif isinstance(given, list) and isinstance(understood, list | tuple):
        for one, other in zip(given, understood, strict=True):
            if found := _unknown(one, other):
                return found
    return ""
