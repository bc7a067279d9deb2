"""The methods by the names that registrations use. No name is ever chosen by a message (security.md 7)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from heliograph.authentication.methods.aes_gmac import AesGmac
from heliograph.authentication.methods.hmac_sha2 import HmacSha2
from heliograph.authentication.methods.interface import TagMethod
from heliograph.authentication.methods.wegman_carter import WegmanCarterPoly1305
from heliograph.errors import ConfigurationError

__all__ = ["DEFAULT_METHOD", "TAG_METHODS", "tag_method"]

DEFAULT_METHOD: Final[TagMethod] = WegmanCarterPoly1305()
_ALL: Final[tuple[TagMethod, ...]] = (DEFAULT_METHOD, HmacSha2(256), HmacSha2(384), AesGmac())
TAG_METHODS: Final[Mapping[str, TagMethod]] = MappingProxyType({method.name: method for method in _ALL})


def tag_method(name: str) -> TagMethod:
    """Return the method registered under ``name``. Raises ConfigurationError that names the others."""
    try:
        return TAG_METHODS[name]
    except KeyError:
        raise ConfigurationError(
            f"no method of data authentication is named {name!r}; write one of: {', '.join(TAG_METHODS)}"
        ) from None
