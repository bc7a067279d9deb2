"""Finds a site's QKD module by the entry point its configuration names; a site imports no module by itself."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from heliograph.errors import ConfigurationError
from heliograph.ports import RandomSource, Receiver, Transmitter

__all__ = ["open_module"]

_GROUP = "heliograph.modules"


async def open_module(name: str, settings: Mapping[str, object], randomness: RandomSource) -> Transmitter | Receiver:
    """Open the module. Raises ConfigurationError for a name nobody installed, and what the module itself raises."""
    found = entry_points(group=_GROUP, name=name)
    if not found:
        known = ", ".join(sorted(e.name for e in entry_points(group=_GROUP))) or "none"
        raise ConfigurationError(f"[module] name = {name!r}: no such module is installed; there are: {known}")
    opened: Transmitter | Receiver = await next(iter(found)).load()(settings, randomness)
    return opened
