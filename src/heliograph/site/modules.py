"""Finds a site's QKD module by the entry point its configuration names; a site imports no module by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import entry_points

from heliograph.errors import ConfigurationError
from heliograph.ports import RandomSource, Receiver, Transmitter
from heliograph.types import BlockId, DetectionRecord, LightParameters, PulseRecord

__all__ = ["LateModule", "open_module"]

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


class LateModule:
    """Stands for a module that was away when the site started; each block tries again until it is there.

    For a site of several links: the device of one must not keep the others from running. While it is away, blocks fail
    as they do when it goes away later, with the same growing pauses. Implements ``Transmitter`` and ``Receiver``.
    """

    def __init__(self, open_: Callable[[], Awaitable[Transmitter | Receiver]]) -> None:
        self._open = open_
        self._module: Transmitter | Receiver | None = None
        self._turn = asyncio.Lock()

    async def emit(self, block: BlockId, light: LightParameters) -> PulseRecord:
        """Send a block's pulses. Raises as the module, and what opening it raises."""
        module: Transmitter = await self._opened()  # type: ignore[assignment]  # ``open_module`` looked at its end
        return await module.emit(block, light)

    async def collect(self, block: BlockId, light: LightParameters) -> DetectionRecord:
        """Measure a block. Raises as the module, and what opening it raises."""
        module: Receiver = await self._opened()  # type: ignore[assignment]  # the same
        return await module.collect(block, light)

    async def close(self) -> None:
        """Release the module, if it came."""
        if self._module is not None:
            await self._module.close()

    async def _opened(self) -> Transmitter | Receiver:
        async with self._turn:
            if self._module is None:
                self._module = await self._open()
            return self._module
