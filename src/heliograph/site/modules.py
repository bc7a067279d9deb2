"""Finds a site's QKD module by the entry point its configuration names; a site imports no module by itself."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from heliograph.errors import ConfigurationError
from heliograph.ports import RandomSource, Receiver, Transmitter

__all__ = ["open_module"]

_GROUP = "heliograph.modules"


async def open_module(
    name: str, settings: Mapping[str, object], randomness: RandomSource, *, is_transmitter: bool
) -> Transmitter | Receiver:
    """Open the module for this end of the light.

    Raises ConfigurationError for a name nobody installed or a module of the other end, and what the module raises.
    """
    found = entry_points(group=_GROUP, name=name)
    if not found:
        known = ", ".join(sorted(e.name for e in entry_points(group=_GROUP))) or "none"
        raise ConfigurationError(f"[module] name = {name!r}: no such module is installed; there are: {known}")
    opened: Transmitter | Receiver = await next(iter(found)).load()(settings, randomness)
    if not hasattr(opened, "emit" if is_transmitter else "collect"):
        await opened.close()
        end = "transmitter" if is_transmitter else "receiver"
        raise ConfigurationError(f"[module] name = {name!r}: not a {end}'s module; correct it or [link] role")
    return opened
